/* K2K: messages between kernels, which are threads and processes with an address and an inbox.
 *
 * All calls return a k2k_result; k2k_error_message() has the words of the last one that failed. Pointers are valid for the
 * call alone. "May be NULL" is said where it is so. A broker may be used by several threads at once, an endpoint by one at a
 * time. Times are in ns. Made by tests/header.rs of the sources; k2k.hpp has the same for C++17.
 */

#ifndef K2K_H
#define K2K_H

#include <stddef.h>
#include <stdint.h>

// Sleep until mail comes: next to no CPU time.
#define K2K_WAIT_PARK 0

// Look, and let other threads of the core run in between.
#define K2K_WAIT_YIELD 1

// Look again at once: a core of its own.
#define K2K_WAIT_SPIN 2

// First in, first out per sender.
#define K2K_PRIORITY_NORMAL 0

// Received before every normal message; after 16 of them in a row one normal message has its turn.
#define K2K_PRIORITY_HIGH 1

// Wait without a limit; a message without a deadline.
#define K2K_FOREVER UINT64_MAX

// Command: handle messages.
#define K2K_COMMAND_RUN 0

// Command: pass on what is for others, handle nothing.
#define K2K_COMMAND_PAUSE 1

// Command: handle what is in the inbox, then stop.
#define K2K_COMMAND_DRAIN 2

// Command: stop after the message in hand.
#define K2K_COMMAND_STOP 3

// Status: on its way, or waiting in an inbox.
#define K2K_STATUS_PENDING 1

// Status: received.
#define K2K_STATUS_DELIVERED 2

// Status: there is no such kernel any more.
#define K2K_STATUS_NOT_FOUND 3

// Status: a forwarder had no room.
#define K2K_STATUS_QUEUE_FULL 4

// Status: the deadline passed before it was received.
#define K2K_STATUS_TIMEOUT 5

// Status: it was forwarded as often as it may be.
#define K2K_STATUS_MAX_HOPS_EXCEEDED 6

// Status: a remote domain has not said in time whether it was received.
#define K2K_STATUS_UNANSWERED 7

// Status: its receiver may not receive from its sender.
#define K2K_STATUS_NOT_ALLOWED 10

// The kind of an answer that is a refusal, as services of the Rust library send it: its payload is a `uint32_t`.
#define K2K_REFUSAL UINT32_MAX

// A refusal: the service knows no request of this kind.
#define K2K_REFUSED_UNKNOWN_KIND UINT32_MAX

// A refusal: the request has another size than the service's requests of this kind.
#define K2K_REFUSED_WRONG_SIZE (UINT32_MAX - 1)

// A handler's answer when it has no mail: it may sleep.
#define K2K_IDLE_DONE 0

// A handler's answer when it has no mail: call it again at once.
#define K2K_IDLE_AGAIN 1

// A handler's answer when it has no mail: call it again soon, within a millisecond.
#define K2K_IDLE_SOON 2

// What a call came to. The numbers never change; later versions may add some.
enum k2k_result
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // It has done what it was asked.
    K2K_OK = 0,
    // An argument is NULL that must not be.
    K2K_NULL = 1,
    // The handle was closed, or never opened.
    K2K_BAD_HANDLE = 2,
    // Another thread, or a handler further up, uses this endpoint at this moment.
    K2K_IN_USE = 3,
    // The `size` of a struct is none that this library knows.
    K2K_BAD_SIZE = 4,
    // An argument has a value that it cannot have.
    K2K_BAD_ARGUMENT = 5,
    // The buffer is too small for the message, which was kept: receive again with `len` bytes.
    K2K_BUFFER_TOO_SMALL = 6,
    // Too many brokers or endpoints are open.
    K2K_TOO_MANY_HANDLES = 7,
    // A mistake of this library: it panicked, and caught the panic.
    K2K_PANIC = 8,
    // There is no such file.
    K2K_FILE_NOT_FOUND = 20,
    // There is a file of that name already.
    K2K_FILE_EXISTS = 21,
    // The file system has too little room.
    K2K_NO_SPACE = 22,
    // The name cannot be a file's.
    K2K_BAD_FILE_NAME = 23,
    // The file is not one that may be used: its type, owner, group or mode.
    K2K_FILE_REFUSED = 24,
    // The file is no fabric, or one of another version, clock or shape; or no fabric has the shape asked for.
    K2K_NOT_A_FABRIC = 25,
    // The system refused.
    K2K_SYSTEM = 26,
    // No kernel can have this name.
    K2K_BAD_NAME = 40,
    // Another kernel has this name.
    K2K_NAME_IN_USE = 41,
    // The fabric has no free kernel index, or not the one asked for.
    K2K_FULL = 42,
    // There is no such kernel, or no such kernel any more.
    K2K_NOT_FOUND = 60,
    // The inbox has no room for this sender now.
    K2K_QUEUE_FULL = 61,
    // It did not happen in time.
    K2K_TIMEOUT = 62,
    // A supervisor told this kernel to stop.
    K2K_STOPPED = 63,
    // The receiver may not receive from this kernel.
    K2K_NOT_ALLOWED = 64,
    // The payload is longer than a message of this fabric.
    K2K_PAYLOAD_TOO_LONG = 65,
    // This process was forked: the handle is the parent's.
    K2K_FORKED = 66,
    // This kernel was taken for dead, and its kernel index taken away.
    K2K_EVICTED = 67,
    // The request was not received, and will not be: see its status.
    K2K_NOT_RECEIVED = 80,
    // No answer came in time; the request was received, or may have been: see its status.
    K2K_NO_ANSWER = 81,
    // The service left without an answer.
    K2K_GONE = 82,
    // Too many other messages came while the answer was waited for: receive them first.
    K2K_CROWDED = 83,
    // The service answered no. For `k2k.hpp`; in C an answer of the kind `K2K_REFUSAL` says so.
    K2K_REFUSED = 84,
    // The receipt was overwritten by a later message.
    K2K_RECEIPT_OVERWRITTEN = 100,
    // No message with this id was sent.
    K2K_RECEIPT_UNKNOWN = 101,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum k2k_result k2k_result;
#else
typedef int32_t k2k_result;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Settings of a new fabric. Zero is the default of each.
typedef struct {
    // `sizeof(k2k_config)`.
    size_t size;
    // How many kernels it has room for, at most 512. Default 16.
    uint32_t kernels;
    // How many messages wait per pair of kernels: a power of two. Default 256.
    uint32_t slots;
    // Bytes of payload that a message carries: a multiple of 64, at most 65472. Default 192.
    uint32_t payload;
    // How often a message may be forwarded, at most 127. Default 8.
    uint32_t hop_limit;
    // How long a message without a deadline of its own may take, ns. Default 5 s.
    uint64_t delivery_timeout_ns;
    // How many messages of high priority one sender may have in an inbox. Default: `slots / kernels`.
    uint32_t high_share;
    // Not 0: kernels write traces.
    uint32_t tracing;
    // Mode of the file. Default 0600.
    uint32_t mode;
    // Not 0: the file's room is taken when it is written, and not at once.
    uint32_t sparse;
} k2k_config;

// A fabric, as this process holds it. Not a pointer: zero is none, and a handle that was closed is found out.
typedef struct {
    // For the library alone.
    uint64_t handle;
} k2k_broker;

// The shape of a fabric.
typedef struct {
    // `sizeof(k2k_shape)`, set by the caller.
    size_t size;
    // How many kernels it has room for.
    uint32_t kernels;
    // How many messages wait per pair of kernels.
    uint32_t slots;
    // Bytes of payload that a message carries.
    uint32_t payload;
    // 0.
    uint32_t reserved;
    // Bytes of the whole fabric.
    uint64_t bytes;
} k2k_shape;

// How a kernel registers. Zero is the default of each.
typedef struct {
    // `sizeof(k2k_registration)`.
    size_t size;
    // How it waits: `K2K_WAIT_PARK`, `K2K_WAIT_YIELD` or `K2K_WAIT_SPIN`.
    uint32_t wait;
    // Not 0: it never sleeps until mail wakes it, so that its senders do not pay for that; if it waits for long, it looks
    // every millisecond.
    uint32_t never_parks;
    // The kernel index, plus 1; 0: any.
    uint32_t index_plus_1;
    // How many other messages it keeps while it waits for the answer to a request. Default 1024, or `kernels * slots` if that is less.
    uint32_t keeps;
} k2k_registration;

// A kernel, as its owner holds it. For one thread at a time. Not a pointer: see `k2k_broker`.
typedef struct {
    // For the library alone.
    uint64_t handle;
} k2k_endpoint;

// The address of a kernel; 0 is none. It never becomes another kernel's.
typedef uint64_t k2k_kernel_id;

// What a kernel, or all of them together, did with messages.
typedef struct {
    // `sizeof(k2k_stats)`, set by the caller.
    size_t size;
    // Messages accepted by a send.
    uint64_t sent;
    // Messages handed to their receiver.
    uint64_t received;
    // Ended because destination or next hop had left.
    uint64_t not_found;
    // Ended because a forwarder had no room.
    uint64_t queue_full;
    // Ended because the deadline passed.
    uint64_t timeout;
    // Ended because the hop limit was reached.
    uint64_t max_hops_exceeded;
    // Ended because a remote domain did not say in time what became of them.
    uint64_t unanswered;
    // Ended because the receiver may not receive from the sender.
    uint64_t not_allowed;
    // Messages passed on for others.
    uint64_t forwarded;
    // Messages found in an inbox that had been ended by another kernel.
    uint64_t discarded;
    // Sends that were refused.
    uint64_t refused;
    // Messages thrown away because memory was damaged.
    uint64_t corrupt;
    // Received messages whose sender's clock was too far ahead.
    uint64_t clock_skews;
} k2k_stats;

// How a message is sent. Zero is the default of each.
typedef struct {
    // `sizeof(k2k_send_options)`.
    size_t size;
    // How long it may take, ns from now; 0: the fabric's delivery timeout; `K2K_FOREVER`: no limit.
    uint64_t timeout_ns;
    // For the caller. A reply carries the sequence of its request here instead.
    uint64_t correlation_id;
    // `K2K_PRIORITY_NORMAL` or `K2K_PRIORITY_HIGH`. A reply has that of its request instead.
    uint32_t priority;
    // Not 0: waits for room until the deadline. Not for replies, nor in a handler.
    uint32_t wait_for_room;
    // How often it may be forwarded; 0: the fabric's limit.
    uint32_t hop_limit;
    // For the caller, 0 to 255.
    uint32_t flags;
} k2k_send_options;

// Names a message: its sender, and the sender's count.
typedef struct {
    // Who sent it.
    k2k_kernel_id source;
    // Which of the source's messages it is, from 1.
    uint64_t sequence;
} k2k_message_id;

// A message that was received, without its payload.
typedef struct {
    // `sizeof(k2k_message)`, set by the caller.
    size_t size;
    // Who sent it.
    k2k_kernel_id source;
    // The sender's count.
    uint64_t sequence;
    // The sequence of the request, if it is a reply; otherwise the sender's choice.
    uint64_t correlation_id;
    // When it was sent, ns since the Unix epoch.
    uint64_t wall_time_ns;
    // When its delivery would have failed, ns on CLOCK_MONOTONIC.
    uint64_t deadline_ns;
    // What the payload means: the sender's number.
    uint32_t kind;
    // Bytes of payload.
    uint32_t len;
    // `K2K_PRIORITY_NORMAL` or `K2K_PRIORITY_HIGH`.
    uint32_t priority;
    // How often it was forwarded.
    uint32_t hops;
    // The sender's choice.
    uint32_t flags;
    // Not 0: it answers a message of this kernel.
    uint32_t is_reply;
} k2k_message;

// Called for each message. In it, `k2k_send`, `k2k_reply`, `k2k_receipt`, `k2k_endpoint_id` and `k2k_stop` work on the
// endpoint; other calls on it give `K2K_IN_USE`. The message and the payload are good until it returns. It must return:
// an exception or a `longjmp` that leaves it is undefined.
typedef void (*k2k_on_message)(void *user, k2k_endpoint endpoint, const k2k_message *message, const void *payload);

// Called when there is no message: one of the `K2K_IDLE_` numbers says when to call it again.
typedef uint32_t (*k2k_on_idle)(void *user, k2k_endpoint endpoint);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The library's version, such as `"0.1.0"`.
const char *k2k_version(void);

// Creates a fabric in a new file, in /dev/shm unless the name has a slash; for NULL in memory of this process alone.
// `config` may be NULL.
k2k_result k2k_create(const char *name, const k2k_config *config, k2k_broker *broker);

// Opens a fabric in a file, of whatever shape.
k2k_result k2k_open(const char *name, k2k_broker *broker);

// Opens a fabric in a file or, if there is none, creates it: for processes that start in any order.
k2k_result k2k_create_or_open(const char *name, const k2k_config *config, k2k_broker *broker);

// Removes a file's name. Processes that have it open keep it.
k2k_result k2k_remove(const char *name);

// Closes a broker. Its endpoints stay open, and keep the memory.
k2k_result k2k_broker_close(k2k_broker broker);

// The fabric's shape.
k2k_result k2k_broker_shape(k2k_broker broker, k2k_shape *shape);

// Registers a kernel under a name of 1 to 32 bytes. `registration` may be NULL.
k2k_result k2k_register(k2k_broker broker,
                        const char *name,
                        const k2k_registration *registration,
                        k2k_endpoint *endpoint);

// The registered kernel of that name, or `K2K_NOT_FOUND`.
k2k_result k2k_find(k2k_broker broker, const char *name, k2k_kernel_id *kernel);

// The kernel of that name, as soon as there is one, or `K2K_TIMEOUT`.
k2k_result k2k_wait_for_kernel(k2k_broker broker, const char *name, uint64_t timeout_ns, k2k_kernel_id *kernel);

// Returns when a kernel has left, or `K2K_TIMEOUT`.
k2k_result k2k_wait_until_gone(k2k_broker broker, k2k_kernel_id kernel, uint64_t timeout_ns);

// Tells a kernel what to do: one of the `K2K_COMMAND_` numbers.
k2k_result k2k_command(k2k_broker broker, k2k_kernel_id kernel, uint32_t command);

// Sets the next hop that the kernel `at` uses for messages to `destination`; 0: none, so that it sends directly.
k2k_result k2k_set_route(k2k_broker broker, k2k_kernel_id at, k2k_kernel_id destination, k2k_kernel_id next_hop);

// Frees the names and kernel indices of kernels whose process is gone. `reaped`, which may be NULL, gets their number.
k2k_result k2k_reap(k2k_broker broker, uint64_t *reaped);

// The counters of a kernel; those of all kernels together for 0.
k2k_result k2k_broker_stats(k2k_broker broker, k2k_kernel_id kernel, k2k_stats *stats);

// Messages whose end was not counted yet, counted one by one.
k2k_result k2k_broker_pending(k2k_broker broker, uint64_t *pending);

// Closes an endpoint: its kernel leaves.
k2k_result k2k_endpoint_close(k2k_endpoint endpoint);

// The kernel's address. Also in its handler.
k2k_result k2k_endpoint_id(k2k_endpoint endpoint, k2k_kernel_id *id);

// Sends a message. `options` and `id` may be NULL, and `data` if `len` is 0. Does not wait unless the options say so.
// Also in the kernel's handler.
//
// `K2K_OK` means that it was accepted: `k2k_receipt` says later what became of it.
k2k_result k2k_send(k2k_endpoint endpoint,
                    k2k_kernel_id to,
                    uint32_t kind,
                    const void *data,
                    size_t len,
                    const k2k_send_options *options,
                    k2k_message_id *id);

// Answers a message that was received: sends to its source, with its sequence as the correlation id, at its priority.
// `options` and `id` may be NULL. Also in the kernel's handler.
k2k_result k2k_reply(k2k_endpoint endpoint,
                     const k2k_message *request,
                     uint32_t kind,
                     const void *data,
                     size_t len,
                     const k2k_send_options *options,
                     k2k_message_id *id);

// What became of a message that this kernel has sent: one of the `K2K_STATUS_` numbers. Also in the kernel's handler.
k2k_result k2k_receipt(k2k_endpoint endpoint, k2k_message_id id, uint32_t *status);

// Lets the run loop of this kernel end after the message in hand. In the kernel's handler only; from elsewhere see
// `k2k_command`.
k2k_result k2k_stop(k2k_endpoint endpoint);

// The next message: waits for it for `timeout_ns`, 0: not at all, `K2K_FOREVER`: without a limit. Its payload goes into
// the buffer, everything else into `message`, which may be NULL.
//
// `K2K_TIMEOUT` if none came; `K2K_BUFFER_TOO_SMALL` if its payload is longer than `capacity`: then `message` says its
// length, and the next call gets the same message.
k2k_result k2k_receive(k2k_endpoint endpoint, k2k_message *message, void *buffer, size_t capacity, uint64_t timeout_ns);

// Sends a request and waits for its answer, `timeout_ns` at most. While there is no room it tries again; other mail is kept
// for `k2k_receive`; a late answer to an earlier request is dropped. The answer goes into the buffer and `message`, as
// in `k2k_receive`.
//
// `K2K_NOT_RECEIVED`: the request was not received, so it is safe to repeat; `K2K_NO_ANSWER`: it was, or may have been.
// `status`, which may be NULL, gets its status then. `K2K_GONE`: the service has left.
k2k_result k2k_request(k2k_endpoint endpoint,
                       k2k_kernel_id to,
                       uint32_t kind,
                       const void *data,
                       size_t len,
                       uint64_t timeout_ns,
                       k2k_message *message,
                       void *buffer,
                       size_t capacity,
                       uint32_t *status);

// Waits for a kernel as `k2k_wait_for_kernel`, but passes messages for others on meanwhile, and ends with `K2K_STOPPED`
// when this kernel is told to stop. `K2K_FOREVER`: without a limit.
k2k_result k2k_endpoint_wait_for_kernel(k2k_endpoint endpoint,
                                        const char *name,
                                        uint64_t timeout_ns,
                                        k2k_kernel_id *found);

// Passes messages for others on, without waiting. `passed`, which may be NULL, gets their number.
k2k_result k2k_poll(k2k_endpoint endpoint, uint64_t *passed);

// For loops around `poll`, `select` or `epoll`: gives a descriptor that becomes readable when the endpoint may have
// something to receive, mail or a command to stop. It stays the same and is closed with the endpoint; do not read it or close it.
//
// Call this each time after `k2k_receive` with no time to wait gave `K2K_TIMEOUT`. `wait` gets 1; or 0 if there is something
// to receive by now, and then the loop must not wait. Register the kernel as one that parks, or the descriptor becomes readable
// every millisecond.
k2k_result k2k_arm(k2k_endpoint endpoint,
                   int *descriptor,
                   int *wait);

// Runs the kernel on this thread until `k2k_stop` in its handler or a `K2K_COMMAND_STOP` or `DRAIN`: calls `on_message`
// for each message, and `on_idle`, which may be NULL, when there is none. Gives a sign of life every `heartbeat_ns`, 0:
// every 250 ms.
//
// Messages that were kept while an answer was waited for are not handled here: receive them before.
k2k_result k2k_run(k2k_endpoint endpoint,
                   k2k_on_message on_message,
                   k2k_on_idle on_idle,
                   void *user,
                   uint64_t heartbeat_ns);

// The words of the last call on this thread that failed, as a string in UTF-8: what was wrong, and what would be right.
// Empty if none has failed. Good until the next call of this function on this thread.
const char *k2k_error_message(void);

// The name of a result, such as `"K2K_QUEUE_FULL"`; `"unknown"` for a number that is none.
const char *k2k_result_name(int32_t result);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* K2K_H */
