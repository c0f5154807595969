// Execs while signals come 10,000 times a second: SIGALRM from setitimer(2), and SIGURG from another thread, as Go
// sends it to preempt. Prints, as JSON, how often which answer came, as [errno or exit code, count] pairs.
//
//     stormer refused RESTART PATH TRIES     execve(PATH) in this process, which has to fail
//     stormer spawned RESTART PATH TRIES     execve(PATH) in a child that only SIGURG is sent to, since a program begins
//                                            with that one ignored; prints exit codes
//     stormer slept RESTART - TRIES          nanosleep(2) of 1 ms instead
//     stormer own KILLABLE PATH TRIES        execve(PATH) behind a listener of its own that answers EACCES after 1 ms,
//                                            without SA_RESTART; last comes how many notifications it had
// RESTART is 1 for handlers with SA_RESTART; KILLABLE is 1 for SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV. Of all but `own`
// comes last how many signals were caught.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

static const struct timespec tick = {0, 100 * 1000}, answer_after = {0, 1000 * 1000};
static volatile pid_t target_process, target_thread;
static volatile int listener = -1, notifications;
static volatile int *signals;  // that came, to children as well
static int answers[256];

static void caught(int number) {
    ++*signals;
}

static void *send_urgent(void *unused) {
    for (;;) {
        if (target_thread > 0) syscall(SYS_tgkill, target_process, target_thread, SIGURG);
        nanosleep(&tick, NULL);
    }
    return NULL;
}

static void *answer(void *unused) {
    while (listener < 0) nanosleep(&tick, NULL);
    for (;;) {
        struct seccomp_notif notification = {0};
        struct seccomp_notif_resp response = {0};
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &notification) != 0) continue;
        notifications++;
        nanosleep(&answer_after, NULL);
        response.id = notification.id;
        response.error = -EACCES;
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response);
    }
    return NULL;
}

static void listen_to_oneself(int killable) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_execve, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    unsigned long flags = SECCOMP_FILTER_FLAG_NEW_LISTENER;
    if (killable) flags |= SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) exit(101);
    int made = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
    if (made < 0) exit(102);
    listener = made;
}

static void without_signals(void *(*what)(void *)) {
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (pthread_create(&thread, NULL, what, NULL) != 0) exit(103);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static int spawned(char *path) {
    char *argv[] = {"storm", NULL}, *envp[] = {NULL};
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        execve(path, argv, envp);
        _exit(100 + errno % 100);
    }
    target_process = pid;
    target_thread = pid;
    if (waitpid(pid, &status, __WALL) != pid) exit(104);
    target_thread = 0;  // a signal to a number that is free by now goes nowhere
    return WIFEXITED(status) ? WEXITSTATUS(status) : 200;
}

int main(int count, char **words) {
    char *argv[] = {"storm", NULL}, *envp[] = {NULL};
    if (count != 5) return 105;
    signals = mmap(NULL, sizeof *signals, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int own = strcmp(words[1], "own") == 0, flag = atoi(words[2]);
    int of_child = strcmp(words[1], "spawned") == 0, sleeps = strcmp(words[1], "slept") == 0;
    struct sigaction action = {.sa_handler = caught, .sa_flags = flag && !own ? SA_RESTART : 0};
    sigaction(SIGALRM, &action, NULL);
    sigaction(SIGURG, &action, NULL);
    without_signals(send_urgent);
    if (own) {
        without_signals(answer);
        listen_to_oneself(flag);
    }
    if (!of_child) {
        struct itimerval every = {{0, 100}, {0, 100}};
        target_process = getpid();
        target_thread = syscall(SYS_gettid);
        setitimer(ITIMER_REAL, &every, NULL);
    }
    for (int left = atoi(words[4]); left > 0; left--) {
        if (of_child) {
            answers[spawned(words[3])]++;
        } else if (sleeps) {
            answers[nanosleep(&answer_after, NULL) == 0 ? 0 : errno]++;
        } else {
            execve(words[3], argv, envp);
            answers[errno]++;
        }
    }
    printf("[");
    for (int number = 0; number < 256; number++)
        if (answers[number]) printf("[%d, %d], ", number, answers[number]);
    printf("%d]\n", own ? notifications : *signals);
    return 0;
}
