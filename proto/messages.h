/* SPDX-License-Identifier: Apache-2.0 */
/* The messages of atomix.multiraft.v1 that travel on the hot path, as plain structs. What the reader fills points
 * into the bytes that were read and lives as long as they do; nothing here owns memory. Knows nothing of rings, logs
 * or state.
 *
 * A proto3 field that is absent and one that holds its default are the same here, as they are for protobuf, except
 * where a `has_` says that a sub-message was there. */
#ifndef PROTO_MESSAGES_H
#define PROTO_MESSAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct slice {
    const uint8_t *data; /* may be NULL when size is 0 */
    size_t size;         /* bytes */
};

/* OperationOutput.Status; also the status of a response frame. */
enum status {
    STATUS_UNKNOWN = 0,
    STATUS_OK = 1,
    STATUS_ERROR = 2,
    STATUS_CANCELED = 3,
    STATUS_NOT_FOUND = 4,
    STATUS_ALREADY_EXISTS = 5,
    STATUS_UNAUTHORIZED = 6,
    STATUS_FORBIDDEN = 7,
    STATUS_CONFLICT = 8,
    STATUS_INVALID = 9,
    STATUS_UNAVAILABLE = 10,
    STATUS_NOT_SUPPORTED = 11,
    STATUS_TIMEOUT = 12,
    STATUS_INTERNAL = 13
};

/* The `oneof` members, by their field numbers. */
enum command_kind {
    COMMAND_NONE = 0,
    COMMAND_OPEN_SESSION = 2,
    COMMAND_KEEP_ALIVE = 3,
    COMMAND_CLOSE_SESSION = 4,
    COMMAND_SESSION_COMMAND = 5,
    COMMAND_AMBIGUOUS = 255 /* two different members */
};
enum session_command_kind {
    SESSION_COMMAND_NONE = 0,
    SESSION_COMMAND_CREATE_SERVICE = 2,
    SESSION_COMMAND_CLOSE_SERVICE = 3,
    SESSION_COMMAND_SERVICE_COMMAND = 4,
    SESSION_COMMAND_AMBIGUOUS = 255
};

struct duration { /* google.protobuf.Duration and Timestamp alike */
    int64_t seconds;
    int32_t nanos;
    bool present;
};

struct operation_input {
    struct slice name;
    struct slice payload;
};

struct service_spec {
    struct slice service;    /* the type */
    struct slice name_space; /* `namespace` in the .proto */
    struct slice name;
};

/* What only OpenSession, only KeepAlive and only CreateService have shares its room: it is looked at where `kind` and
 * `session_kind` say that it is there. */
struct command_input {
    enum command_kind kind;
    enum session_command_kind session_kind; /* if kind is COMMAND_SESSION_COMMAND */
    uint64_t session_id;                    /* KeepAlive, CloseSession, SessionCommand */
    uint64_t service_id;                    /* CloseService, ServiceCommand */
    uint64_t sequence_num;                  /* ServiceCommand */
    struct operation_input operation;       /* ServiceCommand */
    struct slice source;                    /* the encoded PartitionCommandInput that all this was read from */
    struct duration timestamp;              /* what the client put there; ignored by the node */
    union {
        struct duration timeout; /* OpenSession */
        struct {                 /* KeepAlive */
            struct slice input_filter;
            uint64_t last_input_sequence_num;
            bool has_last_output_sequence_nums; /* the map is not empty; read_last_outputs() walks it */
        };
        struct service_spec spec; /* CreateService */
    };
};

struct partition_command_input {
    uint32_t partition_id;
    bool has_command;
    struct command_input command;
};

struct partition_query_input {
    uint32_t partition_id;
    bool sync;
    bool has_query;
    uint64_t max_received_index;
    unsigned query_members;         /* oneof members set in QueryInput: 0 or 1, it has only one */
    unsigned session_query_members; /* the same for SessionQueryInput */
    uint64_t session_id;
    uint64_t service_id;
    struct operation_input operation;
};

/* The answer to one request, or one output of it: what the writer encodes and the client's reader gives back. */
struct operation_output {
    enum status status;
    struct slice message;
    const struct slice *parts; /* the payload, in pieces: written one behind the other; from the reader always one */
    size_t part_count;
    size_t payload_size; /* the sum of the parts' sizes */
};

struct command_output {
    uint64_t index; /* of the command that the output belongs to */
    enum command_kind kind;
    enum session_command_kind session_kind; /* if kind is COMMAND_SESSION_COMMAND */
    uint64_t id;                            /* OpenSession: session_id; CreateService: service_id */
    uint64_t sequence_num;                  /* ServiceCommandOutput: the output's number, from 1 */
    struct operation_output operation;      /* ServiceCommand */
};

#endif
