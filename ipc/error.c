/* SPDX-License-Identifier: Apache-2.0 */
/* Texts of errors, and the end of a process that found its own mistake or has no memory. Knows nothing of who fails and
 * why. */
#include "ipc/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void error_keep_to_one_line(char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i], next = i + 1 < size ? (unsigned char)text[i + 1] : 0;
        if (c < 0x20 || c == 0x7f)
            text[i] = '?';
        else if (c == 0xc2 && next >= 0x80 && next < 0xa0)
            text[i] = text[i + 1] = '?';
    }
}

/* The text, in at most `room` bytes with its NUL. What is cut off is cut with "...", so that it shows. */
static void format_text(char *text, size_t room, const char *format, va_list arguments)
{
    int length = vsnprintf(text, room, format, arguments);

    if (length < 0)
        text[0] = '\0';
    else if ((size_t)length >= room)
        memcpy(text + room - 4, "...", 4);
    error_keep_to_one_line(text, strlen(text));
}

#undef error_set /* for the analyzer's sake: see error.h */
#undef error_system

int error_set(struct mr_error *error, const char *format, ...)
{
    va_list arguments;

    if (error == NULL)
        return -1;
    error->code = 0;
    va_start(arguments, format);
    format_text(error->text, sizeof(error->text), format, arguments);
    va_end(arguments);
    return -1;
}

int error_system(struct mr_error *error, int code, const char *format, ...)
{
    va_list arguments;
    char meaning[96];

    if (error == NULL)
        return -1;
    /* strerrordesc_np() is static and thread-safe, strerror() is not. */
    const char *description = strerrordesc_np(code);
    if (description != NULL)
        snprintf(meaning, sizeof(meaning), ": %s", description);
    else
        snprintf(meaning, sizeof(meaning), ": error %d", code);

    /* A long text gives way to the meaning, not the other way round. */
    error->code = code;
    va_start(arguments, format);
    format_text(error->text, sizeof(error->text) - strlen(meaning), format, arguments);
    va_end(arguments);
    size_t used = strlen(error->text);
    snprintf(error->text + used, sizeof(error->text) - used, "%s", meaning);
    return -1;
}

void assertion_failed(const char *condition, const char *file, int line)
{
    fprintf(stderr, "%s:%d: assertion failed: %s (a bug in Millrace, please report it)\n", file, line, condition);
    abort();
}

void out_of_memory(const char *what)
{
    fprintf(stderr, "no memory for %s: the process ends\n", what);
    _exit(1);
}
