// The last program before the container's: see trampoline_x86_64.S.
//
//   as -o trampoline.o trampoline_aarch64.S
//   objcopy -O binary -j .text trampoline.o trampoline

        .set    base, 0x400000
        .text
        .globl  start
elf:    .byte   0x7f, 'E', 'L', 'F', 2, 1, 1, 0
        .quad   0
        .short  2, 183                  // ET_EXEC, EM_AARCH64
        .long   1
        .quad   base + start - elf
        .quad   segments - elf
        .quad   0
        .long   0
        .short  64, 56, 2, 0, 0, 0
segments:
        .long   1, 5                    // PT_LOAD, R+X
        .quad   0, base, base, end - elf, end - elf, 0x10000
        .long   0x6474e551, 6           // PT_GNU_STACK, R+W
        .quad   0, 0, 0, 0, 0, 16

start:  ldr     x9, [sp, #8]            // argv[0]
        ldrh    w10, [x9]
        cmp     w10, #1
        b.ne    refuse
        mov     x8, #25                 // fcntl(3, F_SETFD, FD_CLOEXEC)
        mov     x0, #3
        mov     x1, #2
        mov     x2, #1
        svc     #0
        tbnz    x0, #63, refuse
        mov     x8, #221                // execve(argv[1], argv + 2, envp)
        ldr     x0, [sp, #16]
        add     x1, sp, #24
        ldr     x9, [sp]
        add     x2, sp, #16
        add     x2, x2, x9, lsl #3
        svc     #0
        neg     w19, w0
        str     w19, [sp]
        mov     x8, #64                 // write(3, &errno, 4)
        mov     x0, #3
        mov     x1, sp
        mov     x2, #4
        svc     #0
        mov     x0, #127
        cmp     w19, #2                 // ENOENT
        b.eq    leave
refuse: mov     x0, #126
leave:  mov     x8, #94                 // exit_group
        svc     #0
end:
