// Execs PATH in one of the ways in which a process comes to call execve(2), and prints, as JSON, who called:
// [parent, process, thread, exit code, errno of the exec]; thread is 0 where a library made the process.
//
//     callers WHO PATH
//
// WHO  thread: a thread that is no leader, in a child
//      vfork, vm: a child that shares the memory, which clone(2) makes with CLONE_VFORK or without
//      spawn: posix_spawn(3)
//      thread-vfork, thread-vm, thread-spawn: the same, made by a thread that is no leader
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static struct shared {
    int process, thread, error;
} *shared;
static char *path, *argv[] = {"called", NULL}, *envp[] = {NULL};
static char stack[64 * 1024] __attribute__((aligned(16)));
static const char *who;
static int status;

static int call(void *unused) {
    shared->process = getpid();
    shared->thread = syscall(SYS_gettid);
    execve(path, argv, envp);
    shared->error = errno;
    _exit(99);
}

static void *call_in_thread(void *unused) {
    call(NULL);
    return NULL;
}

static void *make(void *unused) {
    pid_t pid;
    if (strcmp(who, "thread") == 0) {
        pid = fork();
        if (pid == 0) {
            pthread_t thread;
            pthread_create(&thread, NULL, call_in_thread, NULL);
            for (;;) pause();
        }
    } else if (strcmp(who, "spawn") == 0) {
        shared->error = posix_spawn(&pid, path, NULL, NULL, argv, envp);
        shared->process = pid;
        if (shared->error != 0) return NULL;
    } else {
        int flags = CLONE_VM | SIGCHLD | (strcmp(who, "vfork") == 0 ? CLONE_VFORK : 0);
        pid = clone(call, stack + sizeof stack, flags, NULL);
    }
    if (waitpid(pid, &status, __WALL) != pid) exit(101);
    return NULL;
}

int main(int count, char **words) {
    if (count != 3) return 102;
    int threaded = strncmp(words[1], "thread-", 7) == 0;
    who = words[1] + (threaded ? 7 : 0);
    path = words[2];
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (threaded) {
        pthread_t thread;
        pthread_create(&thread, NULL, make, NULL);
        pthread_join(thread, NULL);
    } else {
        make(NULL);
    }
    printf("[%d, %d, %d, %d, %d]\n", getpid(), shared->process, shared->thread, WEXITSTATUS(status), shared->error);
    return 0;
}
