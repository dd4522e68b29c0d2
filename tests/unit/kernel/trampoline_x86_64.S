# The last program before the container's: started as { "\1", PATH, ARGV... } it executes PATH with ARGV.
#
# Descriptor 3 is the error pipe. It is made CLOEXEC; when the exec fails, errno is written to it as four bytes. Without
# that descriptor, or under any other argv[0] (a script's "#!/proc/self/exe" would start it again and again), it exits 126.
# Exit status: 127 when PATH does not exist, else 126.
#
#   as --64 -o trampoline.o trampoline_x86_64.S
#   objcopy -O binary -j .text trampoline.o trampoline

        .set    base, 0x400000
        .text
        .globl  start
elf:    .byte   0x7f, 'E', 'L', 'F', 2, 1, 1, 0
        .quad   0
        .short  2, 62                   # ET_EXEC, EM_X86_64
        .long   1
        .quad   base + start - elf
        .quad   segments - elf
        .quad   0
        .long   0
        .short  64, 56, 2, 0, 0, 0
segments:
        .long   1, 5                    # PT_LOAD, R+X
        .quad   0, base, base, end - elf, end - elf, 0x1000
        .long   0x6474e551, 6           # PT_GNU_STACK, R+W
        .quad   0, 0, 0, 0, 0, 16

start:  mov     8(%rsp), %rax           # argv[0]
        cmpw    $0x0001, (%rax)
        jne     refuse
        mov     $72, %eax               # fcntl(3, F_SETFD, FD_CLOEXEC)
        mov     $3, %edi
        mov     $2, %esi
        mov     $1, %edx
        syscall
        test    %eax, %eax
        js      refuse
        mov     $59, %eax               # execve(argv[1], argv + 2, envp)
        mov     16(%rsp), %rdi
        lea     24(%rsp), %rsi
        mov     (%rsp), %rcx
        lea     16(%rsp,%rcx,8), %rdx
        syscall
        neg     %eax
        mov     %eax, %ebx
        push    %rax
        mov     $1, %eax                # write(3, &errno, 4)
        mov     $3, %edi
        mov     %rsp, %rsi
        mov     $4, %edx
        syscall
        mov     $127, %edi
        cmp     $2, %ebx                # ENOENT
        je      leave
refuse: mov     $126, %edi
leave:  mov     $231, %eax              # exit_group
        syscall
end:
