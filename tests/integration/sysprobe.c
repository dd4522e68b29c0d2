/* Calls system calls by name and prints one line each: the name and the errno's number, 0 for success.
 * Static, without any privilege of its own: what it prints is what the sandbox lets through. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static char zeros[256];

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

int main(int count, char **names) {
    for (int i = 1; i < count; i++) {
        errno = 0;
        long result = call(names[i]);
        printf("%s %d\n", names[i], result < 0 ? errno : 0);
    }
    return 0;
}
