/* SPDX-License-Identifier: Apache-2.0 */
/* The in-place reader against a second reading of protobuf's rules that is slow and plain: it follows tables of the
 * messages, keeps each message as a tree, and merges by doing so. Both must refuse the same bytes and read the same
 * from the others; what the writer makes of that must be read as the same again, and be written as the same bytes
 * again.
 *
 * Input: a byte that says which message, and then the message, or (bit 2 of that byte) what it is made of: messages of
 * the right form come by chance only if the chance is in their fields. Planted fault: the reader does not know
 * OperationInput.name and OperationOutput.status. */
#include "proto/reader.h"
#include "proto/rows.h"
#include "proto/writer.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

/* ---- the messages, as fsm.proto has them ---- */

enum type { NO_FIELD = 0, NUMBER, BYTES, STRING, MESSAGE, MAP };

enum { FIELDS = 6, NODES = 32 };

struct message;
struct field {
    enum type type;
    const struct message *message;
};
struct message {
    struct field fields[FIELDS]; /* by number */
};

/* clang-format off */
#define N {NUMBER, NULL}
#define B {BYTES, NULL}
#define S {STRING, NULL}
#define M(message) {MESSAGE, &(message)}
static const struct message empty = {{{0}}};
static const struct message id = {{{0}, N}};
static const struct message moment = {{{0}, N, N}};
static const struct message operation_input = {{{0}, S, B}};
static const struct message operation_output = {{{0}, N, B, S}};
static const struct message spec = {{{0}, S, S, S}};
static const struct message create_service = {{{0}, M(spec)}};
static const struct message service_command = {{{0}, N, N, M(operation_input)}};
static const struct message session_command = {{{0}, N, M(create_service), M(id), M(service_command)}};
static const struct message open_session = {{{0}, M(moment)}};
static const struct message keep_alive = {{{0}, N, B, N, {MAP, NULL}}};
static const struct message command = {{{0}, M(moment), M(open_session), M(keep_alive), M(id), M(session_command)}};
static const struct message partition_command = {{{0}, N, M(command)}};
static const struct message service_query = {{{0}, N, M(operation_input)}};
static const struct message session_query = {{{0}, N, M(service_query)}};
static const struct message query = {{{0}, N, M(session_query)}};
static const struct message partition_query = {{{0}, N, M(query), N}};
static const struct message service_output = {{{0}, N, M(operation_output)}};
static const struct message session_output = {{{0}, M(id), M(empty), M(service_output)}};
static const struct message command_output = {{{0}, N, M(id), M(empty), M(empty), M(session_output)}};
static const struct message partition_command_output = {{{0}, M(command_output)}};
static const struct message service_query_output = {{{0}, M(operation_output)}};
static const struct message session_query_output = {{{0}, M(service_query_output)}};
static const struct message query_output = {{{0}, M(session_query_output)}};
static const struct message partition_query_output = {{{0}, M(query_output)}};
/* clang-format on */

/* ---- the second reading ---- */

/* A message as far as it has been read. Absent sub-messages are the node that has nothing. */
struct node {
    uint64_t numbers[FIELDS];
    struct slice bytes[FIELDS];
    struct node *messages[FIELDS];
};

struct tree {
    struct node nodes[NODES];
    unsigned count;
    struct last_output *map; /* ascending; the later of equal keys counts */
    size_t map_count;
};

static struct tree tree, again;
static struct node nothing;

static struct node *new_node(struct tree *to)
{
    FUZZ_CHECK(to->count < NODES);
    to->nodes[to->count] = (struct node){0};
    return &to->nodes[to->count++];
}

static const struct node *member(const struct node *node, unsigned number)
{
    return node->messages[number] != NULL ? node->messages[number] : &nothing;
}

/* At most `most` bytes of seven bits each; bits past the 64th are dropped. False: it does not end. */
static bool read_number(struct slice *rest, unsigned most, uint64_t *number)
{
    *number = 0;
    for (unsigned i = 0; i < most && rest->size > 0; i++) {
        uint8_t byte = rest->data[0];
        rest->data++;
        rest->size--;
        if (7 * i < 64)
            *number |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte < 0x80)
            return true;
    }
    return false;
}

static bool take(struct slice *rest, uint64_t size, struct slice *bytes)
{
    if (size > rest->size)
        return false;
    *bytes = (struct slice){rest->data, (size_t)size};
    rest->data += size;
    rest->size -= (size_t)size;
    return true;
}

/* By the definition: code points from their bits, refused if a shorter form would do or if they are none. */
static bool is_utf8(struct slice text)
{
    static const uint32_t smallest[] = {0, 0x80, 0x800, 0x10000};
    for (size_t i = 0; i < text.size;) {
        uint8_t first = text.data[i++];
        unsigned more = first < 0x80 ? 0 : (first & 0xe0) == 0xc0 ? 1 : (first & 0xf0) == 0xe0 ? 2 : 3;
        if (more == 3 && (first & 0xf8) != 0xf0)
            return false;
        uint32_t point = more == 0 ? first : first & (0x3fU >> more);
        for (unsigned n = 0; n < more; n++, i++) {
            if (i == text.size || (text.data[i] & 0xc0) != 0x80)
                return false;
            point = point << 6 | (text.data[i] & 0x3f);
        }
        if (point < smallest[more] || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff))
            return false;
    }
    return true;
}

struct head {
    uint32_t number;
    unsigned wire;
};

static bool read_head(struct slice *rest, struct head *head)
{
    uint64_t tag;
    if (!read_number(rest, 5, &tag) || (uint32_t)tag >> 3 == 0)
        return false;
    *head = (struct head){(uint32_t)tag >> 3, tag & 7};
    return true;
}

static bool skip(struct slice *rest, struct head head, unsigned depth);

static bool skip_group(struct slice *rest, uint32_t number, unsigned depth)
{
    struct head head;
    while (read_head(rest, &head)) {
        if (head.wire == 4)
            return head.number == number;
        if (!skip(rest, head, depth))
            return false;
    }
    return false;
}

static bool skip(struct slice *rest, struct head head, unsigned depth)
{
    uint64_t number;
    struct slice bytes;
    switch (head.wire) {
    case 0:
        return read_number(rest, 10, &number);
    case 1:
        return take(rest, 8, &bytes);
    case 2:
        return read_number(rest, 5, &number) && take(rest, number, &bytes);
    case 3:
        return depth < 100 && skip_group(rest, head.number, depth + 1);
    case 5:
        return take(rest, 4, &bytes);
    default:
        return false;
    }
}

static void map_put(struct tree *to, uint64_t key, uint64_t value)
{
    size_t at = 0;
    while (at < to->map_count && to->map[at].sequence_num < key)
        at++;
    if (at == to->map_count || to->map[at].sequence_num != key) {
        to->map = realloc(to->map, (to->map_count + 1) * sizeof(*to->map));
        FUZZ_CHECK(to->map != NULL);
        memmove(&to->map[at + 1], &to->map[at], (to->map_count - at) * sizeof(*to->map));
        to->map_count++;
    }
    to->map[at] = (struct last_output){key, value};
}

static bool read_message(struct tree *to, struct node *node, const struct message *message, struct slice rest,
                         unsigned depth);

static bool read_field(struct tree *to, struct node *node, const struct field *field, uint32_t number,
                       struct slice bytes, unsigned depth)
{
    if (field->type == STRING && !is_utf8(bytes))
        return false;
    if (field->type == STRING || field->type == BYTES) {
        node->bytes[number] = bytes;
        return true;
    }
    if (field->type == MAP) {
        struct node entry = {0};
        if (!read_message(to, &entry, &moment, bytes, depth + 1))
            return false;
        map_put(to, entry.numbers[1], entry.numbers[2]);
        return true;
    }
    if (node->messages[number] == NULL)
        node->messages[number] = new_node(to);
    return read_message(to, node->messages[number], field->message, bytes, depth + 1);
}

static bool read_message(struct tree *to, struct node *node, const struct message *message, struct slice rest,
                         unsigned depth)
{
    struct head head;
    struct slice bytes;
    uint64_t number;
    while (rest.size > 0) {
        if (!read_head(&rest, &head))
            return false;
        enum type type = head.number < FIELDS ? message->fields[head.number].type : NO_FIELD;
        if (type == NUMBER && head.wire == 0) {
            if (!read_number(&rest, 10, &node->numbers[head.number]))
                return false;
        } else if (type > NUMBER && head.wire == 2) {
            if (!read_number(&rest, 5, &number) || !take(&rest, number, &bytes) ||
                !read_field(to, node, &message->fields[head.number], head.number, bytes, depth))
                return false;
        } else if (!skip(&rest, head, depth)) {
            return false;
        }
    }
    return true;
}

/* The root, or NULL: malformed. */
static const struct node *read_tree(struct tree *to, const struct message *message, struct slice bytes)
{
    to->count = 0;
    to->map_count = 0;
    struct node *root = new_node(to);
    return read_message(to, root, message, bytes, 0) ? root : NULL;
}

/* The one member that is there, by its number; 0: none; 255: more than one. */
static unsigned the_member(const struct node *node, unsigned first, unsigned last)
{
    unsigned found = 0;
    for (unsigned number = first; number <= last; number++)
        if (node->messages[number] != NULL)
            found = found == 0 ? number : 255;
    return found;
}

/* ---- messages made of the input ---- */

enum { MADE_MAX = 8192 };

struct made {
    uint8_t data[MADE_MAX];
    size_t size;
};

static void put(struct made *to, const void *bytes, size_t size)
{
    if (size == 0 || size > MADE_MAX - to->size)
        return;
    memcpy(to->data + to->size, bytes, size);
    to->size += size;
}

static void put_number(struct made *to, uint64_t number, bool padded)
{
    uint8_t bytes[11];
    size_t size = (size_t)(write_varint(bytes, number) - bytes);
    if (padded && size < 4) {
        bytes[size - 1] |= 0x80;
        bytes[size++] = 0;
    }
    put(to, bytes, size);
}

static void make_message(struct made *to, const struct message *message, struct fuzz_input *input, unsigned depth);

/* A field of this number as the table has it, or (`other`) of another type. */
static void make_field(struct made *to, unsigned number, const struct field *field, bool other,
                       struct fuzz_input *input, unsigned depth)
{
    struct slice bytes;
    struct made *inner;
    if (other || field->type == NO_FIELD) {
        unsigned wire = fuzz_byte(input) % 8;
        bytes = fuzz_bytes(input);
        put_number(to, number << 3 | wire, false);
        if (wire == 2)
            put_number(to, bytes.size, false);
        put(to, bytes.data, bytes.size);
        if (wire == 3)
            put_number(to, number << 3 | 4, false);
        return;
    }
    put_number(to, number << 3 | (field->type == NUMBER ? 0 : 2), depth % 2 == 1 && number == 5);
    if (field->type == NUMBER) {
        put_number(to, fuzz_number(input), number == 2);
    } else if (field->type == BYTES || field->type == STRING) {
        bytes = fuzz_bytes(input);
        put_number(to, bytes.size, number == 3);
        put(to, bytes.data, bytes.size);
    } else {
        inner = calloc(1, sizeof(*inner));
        FUZZ_CHECK(inner != NULL);
        make_message(inner, field->type == MAP ? &moment : field->message, input, depth + 1);
        put_number(to, inner->size, number == 3);
        put(to, inner->data, inner->size);
        free(inner);
    }
}

static void make_message(struct made *to, const struct message *message, struct fuzz_input *input, unsigned depth)
{
    while (fuzz_more(input)) {
        uint8_t code = fuzz_byte(input);
        unsigned number = code % 8;
        if (number == 0)
            return;
        make_field(to, number, number < FIELDS ? &message->fields[number] : &message->fields[0], code >= 224, input,
                   depth);
    }
}

/* ---- is it what the reader says? ---- */

static bool same_bytes(struct slice one, struct slice other)
{
    return one.size == other.size && (one.size == 0 || memcmp(one.data, other.data, one.size) == 0);
}

static void check_moment(const struct node *node, const struct duration *moment_read)
{
    FUZZ_CHECK(moment_read->present == (node != NULL));
    FUZZ_CHECK(node == NULL || moment_read->seconds == (int64_t)node->numbers[1]);
    FUZZ_CHECK(node == NULL || moment_read->nanos == (int32_t)node->numbers[2]);
}

static void check_map_entry(void *context, uint64_t sequence_num, uint64_t last_output)
{
    map_put(context, sequence_num, last_output);
}

static void check_map(const struct command_input *input)
{
    again.map_count = 0;
    read_last_outputs(input->source, check_map_entry, &again);
    FUZZ_CHECK(again.map_count == tree.map_count);
    for (size_t i = 0; i < tree.map_count; i++)
        FUZZ_CHECK(again.map[i].sequence_num == tree.map[i].sequence_num &&
                   again.map[i].last_output == tree.map[i].last_output);
    FUZZ_CHECK(input->has_last_output_sequence_nums == (tree.map_count != 0));
}

static void check_session_command(const struct node *node, const struct command_input *input)
{
    const struct node *create = member(member(node, 2), 1), *service = member(node, 4);
    if (input->session_kind == SESSION_COMMAND_CREATE_SERVICE) {
        FUZZ_CHECK(same_bytes(input->spec.service, create->bytes[1]));
        FUZZ_CHECK(same_bytes(input->spec.name_space, create->bytes[2]));
        FUZZ_CHECK(same_bytes(input->spec.name, create->bytes[3]));
    }
    FUZZ_CHECK(input->service_id == member(node, 3)->numbers[1] + service->numbers[1]); /* one of them is there */
    FUZZ_CHECK(input->sequence_num == service->numbers[2]);
    FUZZ_CHECK(same_bytes(input->operation.name, member(service, 3)->bytes[1]));
    FUZZ_CHECK(same_bytes(input->operation.payload, member(service, 3)->bytes[2]));
}

/* True: only one member of each `oneof`, so that it can be written. */
static bool check_command(const struct node *root, const struct partition_command_input *input)
{
    const struct command_input *read = &input->command;
    const struct node *node = member(root, 2), *session = member(node, 5);
    FUZZ_CHECK(input->partition_id == (uint32_t)root->numbers[1]);
    FUZZ_CHECK(input->has_command == (root->messages[2] != NULL));
    FUZZ_CHECK((unsigned)read->kind == the_member(node, 2, 5));
    check_moment(node->messages[1], &read->timestamp);
    if (read->kind == COMMAND_AMBIGUOUS)
        return false;
    FUZZ_CHECK(read->session_id == member(node, 3)->numbers[1] + member(node, 4)->numbers[1] + session->numbers[1]);
    FUZZ_CHECK((unsigned)read->session_kind == the_member(session, 2, 4));
    if (read->session_kind == SESSION_COMMAND_AMBIGUOUS)
        return false;
    if (read->kind == COMMAND_OPEN_SESSION)
        check_moment(member(node, 2)->messages[1], &read->timeout);
    if (read->kind == COMMAND_KEEP_ALIVE) {
        FUZZ_CHECK(same_bytes(read->input_filter, member(node, 3)->bytes[2]));
        FUZZ_CHECK(read->last_input_sequence_num == member(node, 3)->numbers[3]);
        check_map(read);
    }
    check_session_command(session, read);
    return true;
}

static void check_query(const struct node *root, const struct partition_query_input *input)
{
    const struct node *node = member(root, 2), *session = member(node, 2), *service = member(session, 2);
    FUZZ_CHECK(input->partition_id == (uint32_t)root->numbers[1]);
    FUZZ_CHECK(input->has_query == (root->messages[2] != NULL));
    FUZZ_CHECK(input->sync == (root->numbers[3] != 0));
    FUZZ_CHECK(input->max_received_index == node->numbers[1]);
    FUZZ_CHECK(input->query_members == (node->messages[2] != NULL));
    FUZZ_CHECK(input->session_query_members == (session->messages[2] != NULL));
    FUZZ_CHECK(input->session_id == session->numbers[1]);
    FUZZ_CHECK(input->service_id == service->numbers[1]);
    FUZZ_CHECK(same_bytes(input->operation.name, member(service, 2)->bytes[1]));
    FUZZ_CHECK(same_bytes(input->operation.payload, member(service, 2)->bytes[2]));
}

static void check_operation_output(const struct node *node, const struct operation_output *output)
{
    FUZZ_CHECK((int32_t)output->status == (int32_t)node->numbers[1]);
    FUZZ_CHECK(output->part_count == 1 && output->payload_size == output->parts[0].size);
    FUZZ_CHECK(same_bytes(output->parts[0], node->bytes[2]));
    FUZZ_CHECK(same_bytes(output->message, node->bytes[3]));
}

static bool check_command_output(const struct node *root, const struct command_output *output)
{
    const struct node *node = member(root, 1), *session = member(node, 5), *service = member(session, 3);
    unsigned session_member = the_member(session, 1, 3);
    FUZZ_CHECK(output->index == node->numbers[1]);
    FUZZ_CHECK((unsigned)output->kind == the_member(node, 2, 5));
    if (output->kind == COMMAND_AMBIGUOUS)
        return false;
    /* An output's members are numbered one lower than the input's. */
    FUZZ_CHECK((unsigned)output->session_kind == (session_member % 255 == 0 ? session_member : session_member + 1));
    if (output->session_kind == SESSION_COMMAND_AMBIGUOUS)
        return false;
    FUZZ_CHECK(output->id == member(node, 2)->numbers[1] + member(session, 1)->numbers[1]);
    FUZZ_CHECK(output->sequence_num == service->numbers[1]);
    check_operation_output(member(service, 2), &output->operation);
    return true;
}

/* ---- each kind of message, read, checked, written and read again ---- */

/* The message written anew, of this size, behind it a byte that nobody may touch. */
static uint8_t *room_for(size_t size)
{
    uint8_t *bytes = malloc(size + 1);
    FUZZ_CHECK(bytes != NULL);
    bytes[size] = 0xa5;
    return bytes;
}

static void check_end(const uint8_t *bytes, const uint8_t *behind, size_t size)
{
    FUZZ_CHECK((size_t)(behind - bytes) == size);
    FUZZ_CHECK(bytes[size] == 0xa5);
}

static uint8_t *payload_end(uint8_t *to, struct slice payload)
{
    if (payload.size > 0)
        memcpy(to, payload.data, payload.size);
    return to + payload.size;
}

/* Each gives what it has written, or NULL where nothing can be, or was malformed. */
static uint8_t *try_command(struct slice bytes, size_t *size)
{
    struct partition_command_input input;
    const struct node *root = read_tree(&tree, &partition_command, bytes);
    FUZZ_CHECK((read_partition_command_input(bytes.data, bytes.size, &input) == READ_OK) == (root != NULL));
    if (root == NULL || !check_command(root, &input))
        return NULL;
    *size = partition_command_input_size(&input, tree.map, tree.map_count);
    uint8_t *written = room_for(*size);
    uint8_t *end = write_partition_command_input(written, &input, tree.map, tree.map_count);
    check_end(written, payload_end(end, input.command.operation.payload), *size);
    return written;
}

static uint8_t *try_query(struct slice bytes, size_t *size)
{
    struct partition_query_input input;
    const struct node *root = read_tree(&tree, &partition_query, bytes);
    FUZZ_CHECK((read_partition_query_input(bytes.data, bytes.size, &input) == READ_OK) == (root != NULL));
    if (root == NULL)
        return NULL;
    check_query(root, &input);
    *size = partition_query_input_size(&input);
    uint8_t *written = room_for(*size);
    uint8_t *end = write_partition_query_input(written, &input);
    check_end(written, payload_end(end, input.operation.payload) + (input.sync ? 2 : 0), *size);
    return written;
}

static uint8_t *try_command_output(struct slice bytes, size_t *size)
{
    struct command_output output;
    struct slice part;
    const struct node *root = read_tree(&tree, &partition_command_output, bytes);
    FUZZ_CHECK((read_partition_command_output(bytes.data, bytes.size, &output, &part) == READ_OK) == (root != NULL));
    uint64_t index;
    struct slice payload;
    if (read_first_output(bytes.data, bytes.size, &index, &payload))
        FUZZ_CHECK(root != NULL && output.index == index && output.sequence_num == 1 &&
                   output.kind == COMMAND_SESSION_COMMAND && output.session_kind == SESSION_COMMAND_SERVICE_COMMAND &&
                   output.operation.status == STATUS_OK && output.operation.message.size == 0 &&
                   part.data == payload.data && part.size == payload.size);
    if (root == NULL || !check_command_output(root, &output))
        return NULL;
    *size = partition_command_output_size(&output);
    uint8_t *written = room_for(*size);
    check_end(written, write_partition_command_output(written, &output), *size);
    return written;
}

static uint8_t *try_query_output(struct slice bytes, size_t *size)
{
    struct operation_output output;
    struct slice part;
    const struct node *root = read_tree(&tree, &partition_query_output, bytes);
    FUZZ_CHECK((read_partition_query_output(bytes.data, bytes.size, &output, &part) == READ_OK) == (root != NULL));
    if (root == NULL)
        return NULL;
    check_operation_output(member(member(member(member(root, 1), 1), 1), 1), &output);
    *size = partition_query_output_size(&output);
    uint8_t *written = room_for(*size);
    check_end(written, write_partition_query_output(written, &output), *size);
    return written;
}

/* Read, and if it can be written, written and read again: the same bytes. */
static void try_message(unsigned kind, struct slice bytes)
{
    static uint8_t *(*const tries[])(struct slice, size_t *) = {try_command, try_query, try_command_output,
                                                                try_query_output};
    size_t first_size, second_size = 0;
    uint8_t *first = tries[kind](bytes, &first_size);
    if (first == NULL)
        return;
    uint8_t *second = tries[kind]((struct slice){first, first_size}, &second_size);
    FUZZ_CHECK(second != NULL && second_size == first_size && memcmp(first, second, first_size) == 0);
    free(first);
    free(second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct message *const messages[] = {&partition_command, &partition_query, &partition_command_output,
                                                     &partition_query_output};
    struct fuzz_input input = {data, data + size};
    unsigned form = fuzz_byte(&input), kind = form % 4;
    if (fuzz_planted())
        row_to_drop = kind < 2 ? ROW(OperationInput, name) : ROW(OperationOutput, status);
    if ((form & 4) == 0) {
        try_message(kind, fuzz_rest(&input));
        return 0;
    }
    struct made *made = calloc(1, sizeof(*made));
    FUZZ_CHECK(made != NULL);
    make_message(made, messages[kind], &input, 0);
    /* Of its own, and just as large, so that a sanitizer sees a step past the end. */
    uint8_t *bytes = malloc(made->size + (made->size == 0));
    FUZZ_CHECK(bytes != NULL);
    memcpy(bytes, made->data, made->size);
    try_message(kind, (struct slice){bytes, made->size});
    free(bytes);
    free(made);
    return 0;
}
