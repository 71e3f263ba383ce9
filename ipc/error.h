/* SPDX-License-Identifier: Apache-2.0 */
/* The one way in which a function inside tells its caller why it failed: an int result (0 or -1) and, where a person
 * will want to know, a text saying what happened, to which file or peer, and what to do. The assertion that stays in
 * release builds; and the end of a process that has no memory to go on. */
#ifndef IPC_ERROR_H
#define IPC_ERROR_H

#include <stddef.h>

struct mr_error {
    int code;       /* errno of the failed call; 0: none failed, what was found is wrong */
    char text[384]; /* one line, no newline at its end */
};

/* Fills *error (which may be NULL) and returns -1, so that `return error_set(...)` reads as one thing. */
int error_set(struct mr_error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same for a failed system call: appends ": " and what `code` (an errno) means. */
int error_system(struct mr_error *error, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Replaces, in what is to be one line for a person, all that could begin another one or move a terminal's cursor: a
 * path or a peer's words may contain anything. Of UTF-8 also U+0080 to U+009F, among which is what begins a terminal's
 * commands in one character. */
void error_keep_to_one_line(char *text, size_t size);

#ifdef __clang_analyzer__ /* it looks at one file at a time, and would take them to return 0 now and then */
#define error_set(...) (error_set(__VA_ARGS__), -1)
#define error_system(...) (error_system(__VA_ARGS__), -1)
#endif

/* For our own mistakes only: nothing that a client, a disk or an option says may reach one. Prints and aborts. */
#define mr_assert(condition)                                                                                           \
    (__builtin_expect(!(condition), 0) ? assertion_failed(#condition, __FILE__, __LINE__) : (void)0)
_Noreturn void assertion_failed(const char *condition, const char *file, int line);

/* There is no memory for something without which the process cannot go on. Prints and ends it with status 1: nobody has
 * made a mistake, and another attempt may have the memory. */
_Noreturn void out_of_memory(const char *what);

#endif
