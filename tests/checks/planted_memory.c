/* SPDX-License-Identifier: Apache-2.0 */
/* Mistakes that memcheck must report before what it says of the library counts: a branch on a byte that nobody has set,
 * a look behind the end of a block, memory that is lost. Built without optimization, so that they stay. */
#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    unsigned char *bytes = malloc(8);
    if (bytes == NULL)
        return 1;
    if (bytes[3] == 7)
        printf("seven\n");
    if (bytes[8] == 7)
        printf("seven behind\n");
    bytes = malloc(16);
    free(bytes);
    return 0;
}
