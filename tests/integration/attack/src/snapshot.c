/* Prints what a sandbox lets a process see and do, one fact a line, its words divided by tabs:
 *
 *   status LINE                  of /proc/self/status
 *   mount  LINE                  of /proc/self/mountinfo
 *   limit  NAME SOFT:HARD        a resource limit, -1 for none
 *   dev    PATH WHAT             below /dev: the type, mode, owner and device number, or a link's target
 *   device TYPE MAJOR:MINOR OUTCOMES   of mknod, of opening for reading and of opening for writing
 *   call   ABI:NUMBER OUTCOMES   of every system call, all its arguments -1, and then all 0
 *   call   ABI_NAME:VALUE OUTCOMES   of one that filters judge by its first argument: the value, and 2**32 more, which
 *                                is the same to the kernel; for clone it is the number of a flag's bit
 *
 * An outcome is "ok", an errno's name, "blocks", "signal N" or "exits N".
 *
 *   snapshot inside [MAJOR:MINOR...]   all of it, without these character devices: what acts by being opened
 *   snapshot unconfined                the system calls, without any filter: what the running kernel answers
 *
 * Both are safe for the host. "unconfined" runs as nobody without a capability, in namespaces of its own. "inside" asks
 * for a pid namespace, whose first process it is. No call can be harmful with these arguments: descriptor 0 is a pipe
 * of the program's own (fchmod and fchown would change what it is), the stack pointer leads nowhere (sigreturn would
 * restore whatever lies there), and each call has a process of its own, which ends by the next instruction. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LAST_NUMBER 600
#define LAST_MAJOR 511
#define LAST_CAPABILITY 63
#define NOBODY 65534
#define X32_BIT 0x40000000L
#define PENDING LONG_MIN
#define ERRNOS 4095
#define LOOKS_WHILE_IT_SLEEPS 5
#define LOOKS 10000

/* Not the one on file locks, which no kernel enforces. */
static const char *const limits[] = {
    [RLIMIT_CPU] = "cpu",       [RLIMIT_FSIZE] = "fsize",   [RLIMIT_DATA] = "data",
    [RLIMIT_STACK] = "stack",   [RLIMIT_CORE] = "core",     [RLIMIT_RSS] = "rss",
    [RLIMIT_NPROC] = "nproc",   [RLIMIT_NOFILE] = "nofile", [RLIMIT_MEMLOCK] = "memlock",
    [RLIMIT_AS] = "as",         [RLIMIT_LOCKS] = 0,         [RLIMIT_SIGPENDING] = "sigpending",
    [RLIMIT_MSGQUEUE] = "msgqueue", [RLIMIT_NICE] = "nice", [RLIMIT_RTPRIO] = "rtprio",
    [RLIMIT_RTTIME] = "rttime",
};

/* Few families, as the kernel loads the module of any other that is asked for. */
#define FAMILIES {1, 2, 10, 16, 17, 38, 40, 64, -1}
#define FLAGS {8, 9, 10, 11, 13, 14, 15, 16, 17, 18, 24, 25, 26, 27, 28, 29, 30, 31, -1}
#define PERSONALITIES {0, 8, 0x20000, 0x20008, 0x40000, 0x400000, 0xffffffff, -1}

static const struct {
    const char *abi, *name;
    long number, second;
    int bits;
    long values[20];
} judged[] = {
    {"x86_64", "socket", 41, 1, 0, FAMILIES},         {"i386", "socket", 359, 1, 0, FAMILIES},
    {"x86_64", "clone", 56, 0, 1, FLAGS},             {"i386", "clone", 120, 0, 1, FLAGS},
    {"x86_64", "personality", 135, 0, 0, PERSONALITIES}, {"i386", "personality", 136, 0, 0, PERSONALITIES},
};

/* What makes the call never returns to C, and uses no stack: after vfork two processes go on from here.
 * void call_64(long number, const long arguments[6], volatile long *slot) */
void call_64(long number, const long *arguments, volatile long *slot);
__asm__(".globl call_64\n"
        "call_64:\n"
        "  mov %rdx, %r12\n  mov %rdi, %rax\n  mov %rsi, %r11\n"
        "  mov (%r11), %rdi\n  mov 8(%r11), %rsi\n  mov 16(%r11), %rdx\n"
        "  mov 24(%r11), %r10\n  mov 32(%r11), %r8\n  mov 40(%r11), %r9\n"
        "  xor %esp, %esp\n"
        "  syscall\n"
        "  mov %rax, (%r12)\n"
        "  mov $231, %eax\n  xor %edi, %edi\n  syscall\n"
        "  ud2\n");

void call_32(long number, const long *arguments, volatile long *slot);
__asm__(".globl call_32\n"
        "call_32:\n"
        "  mov %rdx, %r12\n  mov %edi, %eax\n  mov %rsi, %r11\n"
        "  mov (%r11), %ebx\n  mov 8(%r11), %ecx\n  mov 16(%r11), %edx\n"
        "  mov 24(%r11), %esi\n  mov 32(%r11), %edi\n  mov 40(%r11), %ebp\n"
        "  xor %esp, %esp\n"
        "  int $0x80\n"
        "  movslq %eax, %rax\n"
        "  mov %rax, (%r12)\n"
        "  mov $231, %eax\n  xor %edi, %edi\n  syscall\n"
        "  ud2\n");

static void fail(const char *what) {
    perror(what);
    exit(3);
}

static char state_of(pid_t pid) {
    char path[64], text[512] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY);
    if (fd < 0) return '?';
    if (read(fd, text, sizeof text - 1) < 0) text[0] = 0;
    close(fd);
    char *end = strrchr(text, ')');
    return end ? end[2] : '?';
}

/* Wait for its end; kill it where it sleeps on and on, or takes five minutes. Whether it ended by itself. */
static int ended(pid_t pid, int *status) {
    sigset_t children;
    int asleep = 0;
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    for (int looks = 0; asleep < LOOKS_WHILE_IT_SLEEPS && looks < LOOKS;) {
        pid_t gone = waitpid(-1, status, WNOHANG | __WALL);
        if (gone == pid) return 1;
        if (gone > 0) continue;
        if (sigtimedwait(&children, 0, &(struct timespec){0, 30000000}) == SIGCHLD) continue;
        looks++;
        asleep = strchr("STt", state_of(pid)) ? asleep + 1 : 0;
    }
    kill(pid, SIGKILL);
    waitpid(pid, status, __WALL);
    return 0;
}

static const char *name_of(long error) {
    static char unknown[32];
    const char *name = strerrorname_np((int)error);
    snprintf(unknown, sizeof unknown, "errno %ld", error);
    return name ? name : unknown;
}

static void print_outcome(const char *abi, long number, const long *arguments, volatile long *slot) {
    int status;
    *slot = PENDING;
    pid_t pid = fork();
    if (pid < 0) fail("fork");
    if (pid == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, 0);
        if (!strcmp(abi, "i386")) call_32(number, arguments, slot);
        call_64(strcmp(abi, "x32") ? number : number | X32_BIT, arguments, slot);
    }
    if (!ended(pid, &status))
        printf("blocks");
    else if (*slot != PENDING)
        printf("%s", *slot < 0 && *slot >= -ERRNOS ? name_of(-*slot) : "ok");
    else if (WIFSIGNALED(status))
        printf("signal %d", WTERMSIG(status));
    else
        printf("exits %d", WEXITSTATUS(status));
    /* What it forked ends at once, too, and the next call must not see it. */
    while (waitpid(-1, 0, __WALL) > 0) continue;
}

static void print_pair(const char *abi, long number, const long *one, const long *other, volatile long *slot) {
    fflush(stdout);
    print_outcome(abi, number, one, slot);
    putchar(' ');
    fflush(stdout);
    print_outcome(abi, number, other, slot);
    putchar('\n');
    fflush(stdout);
}

static void print_calls(void) {
    static const char *const abis[] = {"x86_64", "i386", "x32"};
    volatile long *slot = mmap(0, sizeof *slot, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int ends[2];
    sigset_t children;
    if (slot == MAP_FAILED) fail("mmap");
    if (pipe2(ends, O_CLOEXEC) || dup2(ends[0], 0) < 0) fail("pipe2");
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    sigprocmask(SIG_BLOCK, &children, 0);
    for (size_t i = 0; i < sizeof abis / sizeof *abis; i++)
        for (long number = 0; number <= LAST_NUMBER; number++) {
            static const long ones[6] = {-1, -1, -1, -1, -1, -1}, zeros[6];
            printf("call\t%s:%ld\t", abis[i], number);
            print_pair(abis[i], number, ones, zeros, slot);
        }
    for (size_t i = 0; i < sizeof judged / sizeof *judged; i++)
        for (size_t j = 0; j < sizeof judged[i].values / sizeof *judged[i].values; j++) {
            long value = judged[i].values[j];
            if (value < 0) break;
            long first[6] = {judged[i].bits ? 1L << value | SIGCHLD : value, judged[i].second};
            long second[6] = {first[0] | 1L << 32, judged[i].second};
            printf("call\t%s_%s:%ld\t", judged[i].abi, judged[i].name, value);
            print_pair(judged[i].abi, judged[i].number, first, second, slot);
        }
}

static void print_lines(const char *what, const char *path) {
    char *line = 0;
    size_t room = 0;
    FILE *file = fopen(path, "re");
    if (!file) fail(path);
    while (getline(&line, &room, file) > 0) printf("%s\t%s", what, line);
    free(line);
    fclose(file);
}

static void print_limits(void) {
    for (int i = 0; i < (int)(sizeof limits / sizeof *limits); i++) {
        struct rlimit limit;
        if (!limits[i]) continue;
        if (getrlimit(i, &limit)) fail("getrlimit");
        printf("limit\t%s\t%ld:%ld\n", limits[i], (long)limit.rlim_cur, (long)limit.rlim_max);
    }
}

static void print_tree(const char *path) {
    struct dirent *entry;
    DIR *folder = opendir(path);
    if (!folder) fail(path);
    while ((entry = readdir(folder))) {
        char name[PATH_MAX], target[PATH_MAX] = "";
        struct stat it;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        if (lstat(name, &it)) fail(name);
        printf("dev\t%s\t", name);
        if (S_ISLNK(it.st_mode)) {
            if (readlink(name, target, sizeof target - 1) < 0) fail(name);
            printf("-> %s\n", target);
            continue;
        }
        char type = S_ISDIR(it.st_mode) ? 'd' : S_ISCHR(it.st_mode) ? 'c' : S_ISBLK(it.st_mode) ? 'b' : '-';
        printf("%c %04o %d:%d", type, it.st_mode & 07777, it.st_uid, it.st_gid);
        if (type == 'c' || type == 'b') printf(" %u:%u", major(it.st_rdev), minor(it.st_rdev));
        putchar('\n');
        if (type == 'd') print_tree(name);
    }
    closedir(folder);
}

static const char *opened(const char *path, int flags) {
    int fd = open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0) return name_of(errno);
    close(fd);
    return "ok";
}

/* Watchdogs that mere opening starts are left out, and tapes that rewind. */
static void print_device(mode_t type, unsigned major_number, unsigned minor_number, char **without) {
    static const char node[] = "/snapshot-node";
    char number[32];
    snprintf(number, sizeof number, "%u:%u", major_number, minor_number);
    if (type == S_IFCHR && (!strcmp(number, "10:130") || major_number == 9)) return;
    for (; type == S_IFCHR && *without; without++)
        if (!strcmp(number, *without)) return;
    printf("device\t%c %s\t", type == S_IFCHR ? 'c' : 'b', number);
    if (mknod(node, type | 0666, makedev(major_number, minor_number)))
        printf("%s - -\n", name_of(errno));
    else {
        printf("ok %s ", opened(node, O_RDONLY));
        printf("%s\n", opened(node, O_WRONLY));
    }
    unlink(node);
}

static void print_devices(char **without) {
    /* Memory, terminals and what programs use of the miscellaneous: tun, fuse, kvm, the mapper and the like. */
    static const unsigned further[][2] = {
        {1, 2},    {1, 3},    {1, 4},    {1, 5},    {1, 6},    {1, 7},    {1, 8},    {1, 9},    {1, 10},   {1, 11},
        {1, 12},   {4, 64},   {5, 2},    {5, 3},    {10, 58},  {10, 59},  {10, 60},  {10, 61},  {10, 62},  {10, 63},
        {10, 144}, {10, 183}, {10, 200}, {10, 223}, {10, 227}, {10, 228}, {10, 229}, {10, 231}, {10, 232}, {10, 234},
        {10, 235}, {10, 236}, {10, 237}, {10, 238}, {10, 239}, {10, 241}, {10, 242}, {136, 2},  {136, 255},
    };
    for (unsigned type = 0; type < 2; type++)
        for (unsigned i = 0; i <= LAST_MAJOR; i++)
            for (unsigned j = 0; j < 2; j++) print_device(type ? S_IFBLK : S_IFCHR, i, j, without);
    for (size_t i = 0; i < sizeof further / sizeof *further; i++)
        print_device(S_IFCHR, further[i][0], further[i][1], without);
}

static int unconfined(void) {
    int status;
    if (unshare(CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWUTS)) fail("unshare");
    pid_t pid = fork();
    if (pid < 0) fail("fork");
    if (pid > 0) {
        waitpid(pid, &status, 0);
        return WIFEXITED(status) ? WEXITSTATUS(status) : 3;
    }
    if (mount("none", "/", 0, MS_REC | MS_PRIVATE, 0) || mount("proc", "/proc", "proc", 0, 0)) fail("mount");
    for (int i = 0; i <= LAST_CAPABILITY; i++) prctl(PR_CAPBSET_DROP, i, 0, 0, 0);
    if (setgroups(0, 0) || setresgid(NOBODY, NOBODY, NOBODY) || setresuid(NOBODY, NOBODY, NOBODY)) fail("setresuid");
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    print_lines("status", "/proc/self/status");
    print_calls();
    exit(0);
}

int main(int count, char **words) {
    if (count == 2 && !strcmp(words[1], "unconfined")) return unconfined();
    if (count < 2 || strcmp(words[1], "inside") || getpid() != 1) {
        fprintf(stderr, "snapshot: inside [MAJOR:MINOR...] (as the first process of a container), or unconfined\n");
        return 2;
    }
    print_lines("status", "/proc/self/status");
    print_lines("mount", "/proc/self/mountinfo");
    print_limits();
    print_tree("/dev");
    print_devices(words + 2);
    print_calls();
    return 0;
}
