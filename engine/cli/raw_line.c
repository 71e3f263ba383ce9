/* SPDX-License-Identifier: Apache-2.0 */
/* The lines of `millrace raw`: see raw_line.h. */
#include "engine/cli/raw_line.h"

#include "proto/reader.h"

#include <inttypes.h>
#include <string.h>

struct word {
    char *text;
    size_t size;
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f';
}

/* The next word; size 0: there is none. */
static struct word next_word(char **at, const char *end)
{
    while (*at < end && is_blank(**at))
        (*at)++;
    struct word word = {.text = *at};
    while (*at < end && !is_blank(**at))
        (*at)++;
    word.size = (size_t)(*at - word.text);
    return word;
}

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* Decodes in place. */
static int decode(struct word hex, struct raw_line *line, struct mr_error *error)
{
    uint8_t *to = (uint8_t *)hex.text;

    line->body = to;
    line->size = 0;
    if (hex.size == 1 && *hex.text == '-')
        return 0;
    for (size_t i = 0; i < hex.size; i++)
        if (digit(hex.text[i]) < 0)
            return error_set(error, "character %zu of the bytes is no hexadecimal digit", i + 1);
    if (hex.size % 2 != 0)
        return error_set(error, "%zu hexadecimal digits: a byte has two", hex.size);
    for (size_t i = 0; i < hex.size; i += 2)
        to[i / 2] = (uint8_t)(digit(hex.text[i]) << 4 | digit(hex.text[i + 1]));
    line->size = hex.size / 2;
    return 0;
}

/* The `P` of `@P`. */
static int parse_partition(const char *text, size_t size, uint32_t *partition, struct mr_error *error)
{
    uint64_t number = 0;

    for (size_t i = 0; i < size && number <= UINT32_MAX; i++) {
        if (text[i] < '0' || text[i] > '9')
            return error_set(error, "'%.*s' is no partition: a whole number in decimal", (int)(size < 40 ? size : 40),
                             text);
        number = number * 10 + (uint64_t)(text[i] - '0');
    }
    if (size == 0 || number > UINT32_MAX)
        return error_set(error, "a partition is a whole number up to %" PRIu32, UINT32_MAX);
    *partition = (uint32_t)number;
    return 0;
}

/* Field 1 of both messages. It is not there, or the bytes are no message: 1, so that a partition says so itself. */
static uint32_t own_partition(const struct raw_line *line)
{
    struct field_reader reader = field_reader((struct slice){.data = line->body, .size = line->size});
    uint32_t partition = 0;

    while (field_next(&reader))
        if (reader.tag == FIELD(1, WIRE_VARINT))
            partition = (uint32_t)reader.value;
    return reader.malformed || partition == 0 ? 1 : partition;
}

enum raw_line_result raw_line_parse(char *text, size_t size, struct raw_line *line, struct mr_error *error)
{
    const char *end = text + size;
    struct word what = next_word(&text, end);
    if (what.size == 0 || *what.text == '#')
        return RAW_LINE_EMPTY;

    const char *at = memchr(what.text, '@', what.size);
    size_t kind_size = at != NULL ? (size_t)(at - what.text) : what.size;
    if (kind_size == 7 && memcmp(what.text, "command", 7) == 0) {
        line->kind = MR_COMMAND;
    } else if (kind_size == 5 && memcmp(what.text, "query", 5) == 0) {
        line->kind = MR_QUERY;
    } else {
        error_set(error, "it starts with neither 'command' nor 'query'");
        return RAW_LINE_MALFORMED;
    }
    if (at != NULL && parse_partition(at + 1, what.size - kind_size - 1, &line->partition, error) != 0)
        return RAW_LINE_MALFORMED;

    struct word hex = next_word(&text, end);
    if (hex.size == 0) {
        error_set(error, "the bytes are missing: hexadecimal digits, or - for none");
        return RAW_LINE_MALFORMED;
    }
    if (decode(hex, line, error) != 0)
        return RAW_LINE_MALFORMED;
    if (next_word(&text, end).size != 0) {
        error_set(error, "there is something behind the bytes");
        return RAW_LINE_MALFORMED;
    }
    if (at == NULL)
        line->partition = own_partition(line);
    return RAW_LINE_ASKS;
}

static void print_message(FILE *to, const char *text, size_t size)
{
    if (size > 0)
        putc(' ', to);
    for (size_t i = 0; i < size; i++) {
        if (text[i] == '\n')
            fputs("\\n", to);
        else if (text[i] == '\\')
            fputs("\\\\", to);
        else
            putc(text[i], to);
    }
    putc('\n', to);
}

void raw_line_print_frame(FILE *to, uint64_t number, const struct mr_result *frame)
{
    static const char digits[16] = "0123456789abcdef";
    const uint8_t *body = frame->as.raw.data;
    size_t size = frame->status == MR_OK ? frame->as.raw.size : 0;

    fprintf(to, "%" PRIu64 " %s ", number, mr_status_name(frame->status));
    if (size == 0)
        putc('-', to);
    for (size_t i = 0; i < size; i++) {
        putc(digits[body[i] >> 4], to);
        putc(digits[body[i] & 15], to);
    }
    print_message(to, frame->message.data, frame->message.size);
}

void raw_line_print_refusal(FILE *to, uint64_t number, enum mr_status status, const char *message)
{
    fprintf(to, "%" PRIu64 " %s -", number, mr_status_name(status));
    print_message(to, message, strlen(message));
}

void raw_line_print_end(FILE *to, uint64_t number)
{
    fprintf(to, "%" PRIu64 " end\n", number);
}
