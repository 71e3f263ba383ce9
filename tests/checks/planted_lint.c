/* SPDX-License-Identifier: Apache-2.0 */
/* Mistakes that clang-tidy and cppcheck must report before their silence about other files counts. */
#include <stdlib.h>
#include <string.h>

#include "tests/checks/planted_lint.h"

char *planted_null(void)
{
    char *text = malloc(4);
    memset(text, '0', 4);
    text = NULL;
    text[0] = 'y';
    return text;
}

int planted_index(int n)
{
    int numbers[4] = {0};
    if (sizeof(numbers) / sizeof(numbers[0]) > 3 && n > 0)
        return numbers[4];
    return 0;
}

double planted_half(int n)
{
    return n / 2 + planted_third(n);
}

int planted_comparison(const char *text)
{
    return memcmp(text, "abc", sizeof(text)) == 0 || strlen(text) == strlen(text);
}
