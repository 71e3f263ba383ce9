/* SPDX-License-Identifier: Apache-2.0 */
/* protobuf's JSON mapping: see message_json.h. A message is walked once for each field of its type, in the order of
 * their numbers; what protobuf-c generated says what fields there are. It does not say which are strings, since they
 * are compiled as bytes: that is the table below, which a test compares with protobuf's own. */
#include "engine/cli/message_json.h"

#include "engine/cli/json.h"
#include "proto/reader.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SECOND INT64_C(1000000000)

/* The fields of type `string` in atomix.multiraft.v1. */
static const struct {
    const char *message;
    const char *field;
} strings[] = {
    {"OperationInput", "name"},   {"OperationOutput", "message"}, {"ServiceSpec", "service"},
    {"ServiceSpec", "namespace"}, {"ServiceSpec", "name"},
};

static bool is_string(const ProtobufCMessageDescriptor *type, const ProtobufCFieldDescriptor *field)
{
    for (size_t n = 0; n < sizeof(strings) / sizeof(strings[0]); n++)
        if (strcmp(type->short_name, strings[n].message) == 0 && strcmp(field->name, strings[n].field) == 0)
            return true;
    return false;
}

/* A map comes as repeated messages whose type has, by protobuf's rule, the name of the field with `Entry` behind it and
 * stands inside the field's message. */
static bool is_map(const ProtobufCMessageDescriptor *type, const ProtobufCFieldDescriptor *field)
{
    if (field->label != PROTOBUF_C_LABEL_REPEATED || field->type != PROTOBUF_C_TYPE_MESSAGE)
        return false;
    const ProtobufCMessageDescriptor *entry = field->descriptor;
    size_t length = strlen(type->name);

    return strncmp(entry->name, type->name, length) == 0 && entry->name[length] == '.' && entry->n_fields == 2 &&
           strcmp(entry->fields[0].name, "key") == 0 && strcmp(entry->fields[1].name, "value") == 0;
}

/* ---- times ---- */

/* Nanoseconds with as many decimals as protobuf gives them: none, 3, 6 or 9. */
static void print_fraction(FILE *to, int64_t nanoseconds)
{
    if (nanoseconds == 0)
        return;
    if (nanoseconds % 1000000 == 0)
        fprintf(to, ".%03" PRId64, nanoseconds / 1000000);
    else if (nanoseconds % 1000 == 0)
        fprintf(to, ".%06" PRId64, nanoseconds / 1000);
    else
        fprintf(to, ".%09" PRId64, nanoseconds);
}

void message_json_time(FILE *to, int64_t seconds, int64_t nanoseconds)
{
    time_t time = (time_t)seconds;
    struct tm utc;

    if (gmtime_r(&time, &utc) == NULL) { /* no year that fits */
        fprintf(to, "%" PRId64, seconds);
        return;
    }
    fprintf(to, "%04d-%02d-%02dT%02d:%02d:%02d", utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday, utc.tm_hour,
            utc.tm_min, utc.tm_sec);
    print_fraction(to, nanoseconds);
    putc('Z', to);
}

void message_json_duration(FILE *to, int64_t seconds, int64_t nanoseconds)
{
    if (seconds < 0 || nanoseconds < 0)
        putc('-', to);
    fprintf(to, "%" PRIu64, seconds < 0 ? -(uint64_t)seconds : (uint64_t)seconds);
    print_fraction(to, nanoseconds < 0 ? -nanoseconds : nanoseconds);
    putc('s', to);
}

/* google.protobuf.Timestamp and Duration have the same two fields. False: another type. */
static bool print_well_known(FILE *to, const ProtobufCMessageDescriptor *type, struct slice bytes)
{
    bool is_time = strcmp(type->name, "google.protobuf.Timestamp") == 0;
    struct field_reader reader = field_reader(bytes);
    int64_t seconds = 0, nanoseconds = 0;

    if (!is_time && strcmp(type->name, "google.protobuf.Duration") != 0)
        return false;
    while (field_next(&reader)) {
        if (reader.tag == FIELD(1, WIRE_VARINT))
            seconds = (int64_t)reader.value;
        else if (reader.tag == FIELD(2, WIRE_VARINT))
            nanoseconds = (int32_t)reader.value;
    }
    putc('"', to);
    if (is_time)
        message_json_time(to, seconds, nanoseconds);
    else
        message_json_duration(to, seconds, nanoseconds);
    putc('"', to);
    return true;
}

/* ---- values ---- */

static enum wire_type wire_of(const ProtobufCFieldDescriptor *field)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return WIRE_BYTES;
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return WIRE_FIXED64;
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        return WIRE_FIXED32;
    default:
        return WIRE_VARINT;
    }
}

/* The value as its type holds it: what does not fit is cut off. */
static uint64_t cut(const ProtobufCFieldDescriptor *field, uint64_t value)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_UINT32:
        return (uint32_t)value;
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_ENUM:
        return (uint64_t)(int64_t)(int32_t)value;
    case PROTOBUF_C_TYPE_BOOL:
        return value != 0;
    default:
        return value;
    }
}

static void print_number(FILE *to, const ProtobufCFieldDescriptor *field, uint64_t value, bool quoted)
{
    const char *quote =
        quoted || field->type == PROTOBUF_C_TYPE_UINT64 || field->type == PROTOBUF_C_TYPE_INT64 ? "\"" : "";
    const ProtobufCEnumValue *named = NULL;

    if (field->type == PROTOBUF_C_TYPE_ENUM)
        named = protobuf_c_enum_descriptor_get_value(field->descriptor, (int)value);
    if (named != NULL)
        fprintf(to, "\"%s\"", named->name);
    else if (field->type == PROTOBUF_C_TYPE_BOOL)
        fprintf(to, "%s%s%s", quote, value != 0 ? "true" : "false", quote);
    else if (field->type == PROTOBUF_C_TYPE_UINT32 || field->type == PROTOBUF_C_TYPE_UINT64)
        fprintf(to, "%s%" PRIu64 "%s", quote, value, quote);
    else
        fprintf(to, "%s%" PRId64 "%s", quote, (int64_t)value, quote);
}

static bool print_bytes(FILE *to, const ProtobufCMessageDescriptor *type, const ProtobufCFieldDescriptor *field,
                        struct slice bytes)
{
    if (field->type == PROTOBUF_C_TYPE_MESSAGE)
        return message_json(to, field->descriptor, bytes);
    if (is_string(type, field))
        json_string(to, bytes.data, bytes.size);
    else
        json_base64(to, bytes.data, bytes.size);
    return true;
}

/* ---- fields ---- */

static void print_name(FILE *to, bool *first, const char *name)
{
    fputs(*first ? "\"" : ", \"", to);
    *first = false;
    for (; *name != '\0'; name++) {
        if (*name == '_' && name[1] != '\0')
            putc(toupper((unsigned char)*++name), to);
        else
            putc(*name, to);
    }
    fputs("\": ", to);
}

bool message_field(struct slice bytes, unsigned number, struct slice *field, uint8_t **made)
{
    struct field_reader reader = field_reader(bytes);
    unsigned pieces = 0;
    size_t size = 0;

    *made = NULL;
    while (field_next(&reader)) {
        if (reader.tag != FIELD(number, WIRE_BYTES))
            continue;
        *field = reader.bytes;
        size += reader.bytes.size;
        pieces++;
    }
    if (reader.malformed || pieces <= 1)
        return !reader.malformed && pieces == 1;
    uint8_t *to = *made = malloc(size + 1);
    if (to == NULL)
        return false;
    *field = (struct slice){.data = to, .size = size};
    reader = field_reader(bytes);
    while (field_next(&reader)) {
        if (reader.tag != FIELD(number, WIRE_BYTES) || reader.bytes.size == 0)
            continue;
        memcpy(to, reader.bytes.data, reader.bytes.size);
        to += reader.bytes.size;
    }
    return true;
}

static bool print_message_field(FILE *to, bool *first, const ProtobufCMessageDescriptor *type,
                                const ProtobufCFieldDescriptor *field, struct slice bytes)
{
    struct field_reader reader = field_reader(bytes);
    struct slice whole;
    uint8_t *made;
    bool there = false;

    while (!there && field_next(&reader))
        there = reader.tag == FIELD(field->id, WIRE_BYTES);
    if (!there)
        return !reader.malformed;
    if (!message_field(bytes, field->id, &whole, &made))
        return false;
    print_name(to, first, field->name);
    bool good = print_bytes(to, type, field, whole);
    free(made);
    return good;
}

static bool print_single(FILE *to, bool *first, const ProtobufCMessageDescriptor *type,
                         const ProtobufCFieldDescriptor *field, struct slice bytes)
{
    struct field_reader reader = field_reader(bytes);
    enum wire_type wire = wire_of(field);
    struct slice content = {0};
    uint64_t value = 0;

    if (field->type == PROTOBUF_C_TYPE_MESSAGE)
        return print_message_field(to, first, type, field, bytes);
    while (field_next(&reader)) {
        if (reader.tag != FIELD(field->id, wire))
            continue;
        content = reader.bytes;
        value = cut(field, reader.value);
    }
    if (reader.malformed || (wire == WIRE_BYTES ? content.size == 0 : value == 0))
        return !reader.malformed;
    print_name(to, first, field->name);
    if (wire == WIRE_BYTES)
        return print_bytes(to, type, field, content);
    print_number(to, field, value, false);
    return true;
}

/* Opens the array before its first element. */
static void print_separator(FILE *to, bool *first, const ProtobufCFieldDescriptor *field, bool *any)
{
    if (*any) {
        fputs(", ", to);
        return;
    }
    print_name(to, first, field->name);
    putc('[', to);
    *any = true;
}

/* Numbers may come each in a field of its own, and packed, and in both ways mixed. */
static bool print_packed(FILE *to, bool *first, const ProtobufCFieldDescriptor *field, struct slice packed, bool *any)
{
    for (size_t at = 0; at < packed.size;) {
        uint64_t value = 0;
        unsigned shift = 0;
        bool more;
        do {
            if (at == packed.size || shift > 63)
                return false;
            more = (packed.data[at] & 0x80) != 0;
            value |= (uint64_t)(packed.data[at++] & 0x7f) << shift;
            shift += 7;
        } while (more);
        print_separator(to, first, field, any);
        print_number(to, field, cut(field, value), false);
    }
    return true;
}

static bool print_repeated(FILE *to, bool *first, const ProtobufCMessageDescriptor *type,
                           const ProtobufCFieldDescriptor *field, struct slice bytes)
{
    struct field_reader reader = field_reader(bytes);
    enum wire_type wire = wire_of(field);
    bool any = false, good = true;

    while (good && field_next(&reader)) {
        if (reader.tag == FIELD(field->id, wire)) {
            print_separator(to, first, field, &any);
            if (wire == WIRE_BYTES)
                good = print_bytes(to, type, field, reader.bytes);
            else
                print_number(to, field, cut(field, reader.value), false);
        } else if (reader.tag == FIELD(field->id, WIRE_BYTES)) {
            good = print_packed(to, first, field, reader.bytes, &any);
        }
    }
    if (any)
        putc(']', to);
    return good && !reader.malformed;
}

/* ---- maps ---- */

struct map_entry {
    uint64_t key, value;
    size_t place;
};

static int by_key(const void *left, const void *right)
{
    const struct map_entry *a = left, *b = right;
    if (a->key != b->key)
        return a->key < b->key ? -1 : 1;
    return a->place < b->place ? -1 : a->place > b->place;
}

/* From numbers to numbers: there is no other. */
static bool read_entry(const ProtobufCMessageDescriptor *type, struct slice bytes, struct map_entry *entry)
{
    struct field_reader reader = field_reader(bytes);

    while (field_next(&reader)) {
        if (reader.tag == FIELD(type->fields[0].id, WIRE_VARINT))
            entry->key = cut(&type->fields[0], reader.value);
        else if (reader.tag == FIELD(type->fields[1].id, WIRE_VARINT))
            entry->value = cut(&type->fields[1], reader.value);
    }
    return !reader.malformed;
}

/* A key that comes twice has the later value, and JSON's readers want to see it once. */
static bool print_map(FILE *to, bool *first, const ProtobufCFieldDescriptor *field, struct slice bytes)
{
    const ProtobufCMessageDescriptor *type = field->descriptor;
    struct field_reader reader = field_reader(bytes);
    size_t count = 0, room = 0;
    struct map_entry *entries = NULL;
    bool good = true, none = true;

    while (good && field_next(&reader)) {
        if (reader.tag != FIELD(field->id, WIRE_BYTES))
            continue;
        if (count == room) {
            room = room == 0 ? 16 : room * 2;
            struct map_entry *more = realloc(entries, room * sizeof(*more));
            good = more != NULL;
            entries = good ? more : entries;
        }
        if (good) {
            entries[count] = (struct map_entry){.place = count};
            good = read_entry(type, reader.bytes, &entries[count++]);
        }
    }
    good = good && !reader.malformed;
    if (good && count > 0) {
        qsort(entries, count, sizeof(*entries), by_key);
        print_name(to, first, field->name);
        putc('{', to);
        for (size_t n = 0; n < count; n++) {
            if (n + 1 < count && entries[n + 1].key == entries[n].key)
                continue;
            fputs(none ? "" : ", ", to);
            none = false;
            print_number(to, &type->fields[0], entries[n].key, true);
            fputs(": ", to);
            print_number(to, &type->fields[1], entries[n].value, false);
        }
        putc('}', to);
    }
    free(entries);
    return good;
}

/* ---- messages ---- */

bool message_json_members(FILE *to, bool *first, const ProtobufCMessageDescriptor *type, struct slice bytes,
                          unsigned from)
{
    bool good = true;

    for (unsigned n = 0; good && n < type->n_fields; n++) {
        const ProtobufCFieldDescriptor *field = &type->fields[n];
        if (field->id < from)
            continue;
        if (is_map(type, field))
            good = print_map(to, first, field, bytes);
        else if (field->label == PROTOBUF_C_LABEL_REPEATED)
            good = print_repeated(to, first, type, field, bytes);
        else
            good = print_single(to, first, type, field, bytes);
    }
    return good;
}

bool message_json(FILE *to, const ProtobufCMessageDescriptor *type, struct slice bytes)
{
    bool first = true;

    if (print_well_known(to, type, bytes))
        return true;
    putc('{', to);
    bool good = message_json_members(to, &first, type, bytes, 0);
    putc('}', to);
    return good;
}

bool message_sound(const ProtobufCMessageDescriptor *type, struct slice bytes)
{
    struct field_reader reader = field_reader(bytes);

    while (field_next(&reader)) {
        const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field(type, reader.tag >> 3);
        if (field == NULL || (reader.tag & 7) != WIRE_BYTES || wire_of(field) != WIRE_BYTES)
            continue;
        if (field->type == PROTOBUF_C_TYPE_MESSAGE ? !message_sound(field->descriptor, reader.bytes)
                                                   : is_string(type, field) && !utf8_valid(reader.bytes))
            return false;
    }
    return !reader.malformed;
}
