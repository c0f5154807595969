// Execs again and again while somebody else swaps what is asked for: what the trap was shown need not be what the
// kernel reads afterwards. Prints, as JSON, how often what ran.
//
//     racer WHAT WHO INSIDE OUTSIDE TRIES
//
// WHAT  path: between the paths INSIDE and OUTSIDE, which differ in one byte
//       memfd: between /proc/self/fd/N of INSIDE and of a memfd with OUTSIDE's contents
//       directory: which directory execveat's descriptor is, between those of INSIDE and OUTSIDE
//       argument: between "i" and "o" as the first argument of INSIDE
// WHO   thread: a sibling of the one that execs; process: another one, over MAP_SHARED memory
// INSIDE exits with 0 and OUTSIDE with 1. For `argument` INSIDE is test(1): `test i = i`, `test o = i`.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SWAPPED_DIRECTORY = 9, FAILED = 100 };

static struct shared {
    char path[4096];
    char argument[8];
    volatile char *swapped;
    char inside, outside;
    volatile int directories[2];  // swapped by dup2(2) where they are set
} *shared;

static void *swap(void *unused) {
    for (;;) {
        if (shared->directories[0]) {
            dup2(shared->directories[0], SWAPPED_DIRECTORY);
            dup2(shared->directories[1], SWAPPED_DIRECTORY);
        } else {
            *shared->swapped = shared->outside;
            *shared->swapped = shared->inside;
        }
    }
    return unused;
}

static int act(void *at) {
    char *argv[] = {"test", shared->argument, "=", "i", NULL}, *envp[] = {NULL};
    syscall(SYS_execveat, at ? SWAPPED_DIRECTORY : AT_FDCWD, shared->path, argv, envp, 0);
    _exit(FAILED + errno);
}

static int need(int result, const char *what) {
    if (result < 0) {
        perror(what);
        exit(2);
    }
    return result;
}

static int memfd_of(const char *path) {
    int source = need(open(path, O_RDONLY), path);
    int writable = memfd_create("program", 0);
    if (writable < 0)  // the rule leaves only memfds that can never be executed
        writable = need(memfd_create("program", 8), "memfd_create");
    struct stat about;
    need(fstat(source, &about), "fstat");
    need(sendfile(writable, source, NULL, about.st_size), "sendfile");
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", writable);
    int readable = need(open(name, O_RDONLY), name);  // what is open for writing cannot be executed
    close(writable);
    return readable;
}

static int directory_of(const char *path) {
    char name[4096];
    snprintf(name, sizeof name, "%s", path);
    *strrchr(name, '/') = 0;
    return need(open(name, O_PATH), name);
}

static void prepare(const char *what, const char *inside, const char *outside) {
    snprintf(shared->path, sizeof shared->path, "%s", inside);
    strcpy(shared->argument, "i");
    if (!strcmp(what, "path")) {
        size_t at = 0;
        while (inside[at] == outside[at])
            at++;
        shared->swapped = shared->path + at, shared->inside = inside[at], shared->outside = outside[at];
    } else if (!strcmp(what, "memfd")) {
        need(dup2(need(open(inside, O_RDONLY), inside), 7), "dup2");
        need(dup2(memfd_of(outside), 8), "dup2");
        strcpy(shared->path, "/proc/self/fd/7");
        shared->swapped = shared->path + strlen(shared->path) - 1, shared->inside = '7', shared->outside = '8';
    } else if (!strcmp(what, "directory")) {
        strcpy(shared->path, strrchr(inside, '/') + 1);
        int first = directory_of(inside), second = directory_of(outside);
        need(dup2(first, SWAPPED_DIRECTORY), "dup2");
        shared->directories[0] = first, shared->directories[1] = second;
    } else {
        shared->swapped = shared->argument, shared->inside = 'i', shared->outside = 'o';
    }
}

int main(int argc, char **argv) {
    if (argc != 6)
        return 2;
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char *stack = malloc(65536);
    prepare(argv[1], argv[3], argv[4]);
    pid_t swapper = 0;
    pthread_t thread;
    if (!strcmp(argv[2], "process")) {
        if ((swapper = need(fork(), "fork")) == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            swap(NULL);
        }
    } else {
        pthread_create(&thread, NULL, swap, NULL);
    }
    int at = !strcmp(argv[1], "directory"), counts[256] = {0};
    for (int left = atoi(argv[5]); left > 0; left--) {
        int status, flags = CLONE_VM | CLONE_VFORK | SIGCHLD | (at ? CLONE_FILES : 0);
        pid_t pid = need(clone(act, stack + 65536, flags, at ? shared : NULL), "clone");
        need(waitpid(pid, &status, 0), "waitpid");
        counts[WIFEXITED(status) ? WEXITSTATUS(status) : 255]++;
    }
    if (swapper) {
        kill(swapper, SIGKILL);
        waitpid(swapper, NULL, 0);
    }
    printf("{\"inside ran\": %d, \"outside ran\": %d, \"EPERM\": %d, \"EACCES\": %d}\n", counts[0], counts[1],
           counts[FAILED + EPERM], counts[FAILED + EACCES]);
    fflush(stdout);
    _exit(0);  // the swapping thread never ends
}
