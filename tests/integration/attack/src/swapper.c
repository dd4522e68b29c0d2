/* swapper A B: exchange two paths (RENAME_EXCHANGE) as fast as it goes, until it is killed; or, with a third argument, so
 * many times. One path may be missing meanwhile, as an engine makes and removes things: that is tried again. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int count, char **arguments) {
    if (count < 3) return 2;
    long rounds = count > 3 ? atol(arguments[3]) : -1;
    while (rounds != 0) {
        if (renameat2(AT_FDCWD, arguments[1], AT_FDCWD, arguments[2], RENAME_EXCHANGE) == 0) {
            if (rounds > 0) rounds--;
        } else if (errno != ENOENT && errno != EBUSY) {
            perror("swapper");
            return 1;
        }
    }
    return 0;
}
