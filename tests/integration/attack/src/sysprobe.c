/* Calls system calls and prints one line each: what was asked, a blank, and the errno's number, 0 for success.
 * Static, without any privilege of its own: what it prints is what the sandbox lets through.
 *
 * Asked for are names ("mount", "ping:ADDRESS") or numbers, each call in a process of its own:
 *
 *   ABI:NUMBER[:ARGUMENT...]   one call; ABI is x86_64, i386 (int 0x80) or x32, an argument a number (0x20, -1), "@" for
 *                              the address of zeros or "@TEXT" for the address of a text
 *   sweep:ABI:FIRST:LAST       all these numbers, every argument -1: one line "ABI:NUMBER RESULT" for each
 *
 * Where a call does not return, "signal:N" (14: it waited for a second) or "exit:N" stands in the errno's place. Zeros and
 * texts lie below 4 GB, so that the 32-bit calls reach them; the program has to be linked at a fixed address.
 *
 * On a host the calls would succeed: only the first process of a pid namespace, or a child of it, makes any. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define X32_BIT 0x40000000L
#define PENDING LONG_MIN
#define ARGUMENTS 6
#define TEXT 512

static char zeros[4096];
static char texts[ARGUMENTS][TEXT];

static long child_of(long flags) {
    long pid = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) _exit(0);
    if (pid > 0) waitpid(pid, 0, 0);
    return pid;
}

static long traced_child(void) {
    pid_t pid = fork();
    if (pid == 0) {
        if (ptrace(PTRACE_TRACEME, 0, 0, 0)) _exit(1);
        raise(SIGSTOP);
        _exit(0);
    }
    int status;
    if (pid < 0 || waitpid(pid, &status, 0) < 0 || !WIFSTOPPED(status)) {
        errno = ECHILD;
        return -1;
    }
    long result = ptrace(PTRACE_CONT, pid, 0, 0);
    waitpid(pid, 0, 0);
    return result;
}

static long make_and_open(mode_t type, int major, int minor) {
    unlink("/tmp/node");
    if (mknod("/tmp/node", type | 0600, makedev(major, minor))) return -1;
    int fd = open("/tmp/node", O_RDONLY);
    int saved = errno;
    unlink("/tmp/node");
    errno = saved;
    return fd;
}

static long only_make(mode_t type, int major, int minor) {
    unlink("/tmp/node");
    long result = mknod("/tmp/node", type | 0600, makedev(major, minor));
    unlink("/tmp/node");
    return result;
}

static long chroot_here(void) {
    pid_t pid = fork();
    if (pid == 0) _exit(chroot("/") ? errno : 0);
    int status;
    waitpid(pid, &status, 0);
    errno = WEXITSTATUS(status);
    return errno ? -1 : 0;
}

/* An echo request over an unprivileged ICMP socket, and its answer within five seconds. */
static long ping(const char *address) {
    struct sockaddr_in to = {.sin_family = AF_INET};
    struct timeval limit = {5, 0};
    unsigned char echo[8] = {8}, answer[64];
    int fd = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
    if (fd < 0) return -1;
    inet_pton(AF_INET, address, &to.sin_addr);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (sendto(fd, echo, sizeof echo, 0, (struct sockaddr *)&to, sizeof to) < 0) return -1;
    return recv(fd, answer, sizeof answer, 0);
}

static long call(const char *name) {
    struct { unsigned long long flags, mode, resolve; } how = {O_RDONLY, 0, 0};
    if (!strncmp(name, "ping:", 5)) return ping(name + 5);
    if (!strncmp(name, "unshare:", 8)) return syscall(SYS_unshare, strtol(name + 8, 0, 16));
    if (!strcmp(name, "mount")) return syscall(SYS_mount, "none", "/tmp", "tmpfs", 0, 0);
    if (!strcmp(name, "umount")) return syscall(SYS_umount2, "/proc", 2);
    if (!strcmp(name, "setns")) return syscall(SYS_setns, open("/proc/self/ns/uts", O_RDONLY), 0);
    if (!strcmp(name, "sethostname")) return syscall(SYS_sethostname, "x", 1);
    if (!strcmp(name, "bpf")) return syscall(SYS_bpf, 0, zeros, sizeof zeros);
    if (!strcmp(name, "keyctl")) return syscall(SYS_keyctl, 0, -3, 0, 0, 0);
    if (!strcmp(name, "add_key")) return syscall(SYS_add_key, "user", "x", "y", 1, -3);
    if (!strcmp(name, "io_uring_setup")) return syscall(425, 1, zeros);
    if (!strcmp(name, "userfaultfd")) return syscall(SYS_userfaultfd, 0);
    if (!strcmp(name, "open_by_handle_at")) return syscall(SYS_open_by_handle_at, 0, zeros, 0);
    if (!strcmp(name, "swapon")) return syscall(SYS_swapon, "/tmp", 0);
    if (!strcmp(name, "reboot")) return syscall(SYS_reboot, 0, 0, 0, 0);
    if (!strcmp(name, "clone_newuser")) return child_of(CLONE_NEWUSER);
    if (!strcmp(name, "personality")) return syscall(SYS_personality, 0x40000);
    if (!strcmp(name, "clone3")) return syscall(435, zeros, 88);
    if (!strcmp(name, "fork")) return child_of(0);
    if (!strcmp(name, "chroot")) return chroot_here();
    if (!strcmp(name, "memfd_create")) return syscall(SYS_memfd_create, "x", 0);
    if (!strcmp(name, "openat2")) return syscall(437, AT_FDCWD, "/", &how, sizeof how);
    if (!strcmp(name, "ptrace")) return traced_child();
    if (!strcmp(name, "af_alg")) return syscall(SYS_socket, 38, 5, 0);
    if (!strcmp(name, "af_alg_high")) return syscall(SYS_socket, 38L | 1L << 32, 5, 0);
    if (!strcmp(name, "mknod_mem")) return only_make(S_IFCHR, 1, 1);
    if (!strcmp(name, "mknod_disk")) return only_make(S_IFBLK, 8, 0);
    if (!strcmp(name, "open_mem")) return make_and_open(S_IFCHR, 1, 1);
    if (!strcmp(name, "open_disk")) return make_and_open(S_IFBLK, 8, 0);
    if (!strcmp(name, "open_null")) return make_and_open(S_IFCHR, 1, 3);
    if (!strcmp(name, "chown")) {
        close(open("/tmp/file", O_CREAT | O_WRONLY, 0600));
        return chown("/tmp/file", 1, 1);
    }
    fprintf(stderr, "unknown call %s\n", name);
    exit(2);
}

#ifdef __x86_64__
/* long call_i386(long number, const long arguments[6]) */
long call_i386(long number, const long *arguments);
__asm__(".globl call_i386\n"
        "call_i386:\n"
        "  push %rbx\n  push %rbp\n"
        "  mov %edi, %eax\n  mov %rsi, %r11\n"
        "  mov (%r11), %ebx\n  mov 8(%r11), %ecx\n  mov 16(%r11), %edx\n"
        "  mov 24(%r11), %esi\n  mov 32(%r11), %edi\n  mov 40(%r11), %ebp\n"
        "  int $0x80\n"
        "  movslq %eax, %rax\n"
        "  pop %rbp\n  pop %rbx\n"
        "  ret\n");

/* 0, an errno as a positive number, or the process ends. */
static long call_number(const char *abi, long number, const long *a) {
    long result;
    if (!strcmp(abi, "i386")) {
        result = call_i386(number, a);
        return result < 0 && result > -4096 ? -result : 0;
    }
    errno = 0;
    result = syscall(strcmp(abi, "x32") ? number : number | X32_BIT, a[0], a[1], a[2], a[3], a[4], a[5]);
    return result == -1 ? errno : 0;
}

static void call_apart(const char *asked, const char *abi, long number, const long *arguments) {
    volatile long *slot = mmap(0, sizeof *slot, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status = 0;
    if (slot == MAP_FAILED) exit(3);
    *slot = PENDING;
    pid_t pid = fork();
    if (pid < 0) exit(3);
    if (pid == 0) {
        alarm(1);
        *slot = call_number(abi, number, arguments);
        _exit(0);
    }
    waitpid(pid, &status, 0);
    if (*slot != PENDING)
        printf("%s %ld\n", asked, *slot);
    else if (WIFSIGNALED(status))
        printf("%s signal:%d\n", asked, WTERMSIG(status));
    else
        printf("%s exit:%d\n", asked, WEXITSTATUS(status));
    munmap((void *)slot, sizeof *slot);
}

static long argument(const char *text, int place) {
    if (!strcmp(text, "@")) return (long)zeros;
    if (text[0] == '@') return (long)strncpy(texts[place], text + 1, TEXT - 1);
    return text[0] == '-' ? strtol(text, 0, 0) : (long)strtoul(text, 0, 0);
}

/* Whether "x86_64:...", "i386:...", "x32:..." or "sweep:..." was asked, and then it is done. */
static int by_number(const char *asked) {
    char copy[1024], *rest = copy, *word, *abi;
    long arguments[ARGUMENTS] = {0}, numbers[2] = {0};
    int sweep = !strncmp(asked, "sweep:", 6);
    snprintf(copy, sizeof copy, "%s", sweep ? asked + 6 : asked);
    abi = strsep(&rest, ":");
    if (strcmp(abi, "x86_64") && strcmp(abi, "i386") && strcmp(abi, "x32")) return 0;
    for (int i = 0; i < 1 + sweep; i++)
        if ((word = strsep(&rest, ":"))) numbers[i] = strtol(word, 0, 0);
    if (!sweep) {
        for (int i = 0; i < ARGUMENTS && (word = strsep(&rest, ":")); i++) arguments[i] = argument(word, i);
        call_apart(asked, abi, numbers[0], arguments);
        return 1;
    }
    for (int i = 0; i < ARGUMENTS; i++) arguments[i] = -1;
    for (long number = numbers[0]; number <= numbers[1]; number++) {
        char line[64];
        snprintf(line, sizeof line, "%s:%ld", abi, number);
        call_apart(line, abi, number, arguments);
    }
    return 1;
}
#else
static int by_number(const char *asked) {
    (void)asked;
    return 0;
}
#endif

int main(int count, char **names) {
    setvbuf(stdout, 0, _IOLBF, BUFSIZ);
    if (getpid() != 1 && getppid() > 1) {
        fprintf(stderr, "sysprobe: this is for the inside of a container\n");
        return 3;
    }
    for (int i = 1; i < count; i++) {
        if (by_number(names[i])) continue;
        errno = 0;
        long result = call(names[i]);
        printf("%s %d\n", names[i], result < 0 ? errno : 0);
    }
    return 0;
}
