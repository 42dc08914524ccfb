/* The C side of the benchmark (examples/bench.rs): what the Rust side does as well, by the same steps.
 *
 *     peer echo FABRIC spin|yield|park      sends every message back
 *     peer sink FABRIC spin|yield|park      takes messages; answers those of the kind 2
 *     peer source FABRIC spin|yield|park N  sends N messages to "sink", and waits for the answer to the last one
 *
 * A message of the kind 3 ends echo and sink.
 */
#include <k2k.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PLAIN = 1, LAST = 2, END = 3, LEN = 64 };

static void check(k2k_result result, const char *what) {
    if (result != K2K_OK) {
        fprintf(stderr, "peer: %s: %s: %s\n", what, k2k_result_name(result), k2k_error_message());
        exit(1);
    }
}

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: peer echo|sink|source FABRIC spin|yield|park [N]\n");
        return 2;
    }
    k2k_broker broker;
    k2k_endpoint me;
    k2k_registration how = {.size = sizeof how};
    how.wait = strcmp(argv[3], "spin") == 0 ? K2K_WAIT_SPIN : strcmp(argv[3], "yield") == 0 ? K2K_WAIT_YIELD : K2K_WAIT_PARK;
    how.never_parks = how.wait != K2K_WAIT_PARK;
    check(k2k_open(argv[2], &broker), "open");
    check(k2k_register(broker, argv[1], &how, &me), "register");
    k2k_message message = {.size = sizeof message};
    unsigned char payload[LEN] = {0};

    if (strcmp(argv[1], "source") == 0) {
        k2k_kernel_id sink;
        k2k_send_options waits = {.size = sizeof waits, .wait_for_room = 1, .timeout_ns = K2K_FOREVER};
        check(k2k_endpoint_wait_for_kernel(me, "sink", 10000000000u, &sink), "find the sink");
        for (unsigned long long left = strtoull(argv[4], NULL, 10); left > 0; left--) {
            check(k2k_send(me, sink, left == 1 ? LAST : PLAIN, payload, LEN, &waits, NULL), "send");
        }
        check(k2k_receive(me, &message, payload, LEN, K2K_FOREVER), "receive the answer");
    } else {
        int echoes = strcmp(argv[1], "echo") == 0;
        for (;;) {
            check(k2k_receive(me, &message, payload, LEN, K2K_FOREVER), "receive");
            if (message.kind == END) {
                break;
            }
            if (echoes || message.kind == LAST) {
                check(k2k_reply(me, &message, message.kind, payload, message.len, NULL, NULL), "reply");
            }
        }
    }
    check(k2k_endpoint_close(me), "leave");
    return 0;
}
