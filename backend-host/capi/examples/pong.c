/* Sends every ball back until it is told goodbye: a kernel with a handler, in a run loop.
 *
 *     pong FABRIC
 *
 * The other half of ping.c. A supervisor can pause, drain and stop it: `k2k stop FABRIC pong`.
 */
#include <k2k.h>

#include <stdio.h>
#include <stdlib.h>

enum { BALL = 1, GOODBYE = 2 };

static void check(k2k_result result, const char *what) {
    if (result != K2K_OK) {
        fprintf(stderr, "pong: %s: %s: %s\n", what, k2k_result_name(result), k2k_error_message());
        exit(1);
    }
}

static void on_message(void *user, k2k_endpoint me, const k2k_message *message, const void *payload) {
    unsigned long *balls = user;
    if (message->kind == GOODBYE) {
        check(k2k_stop(me), "stop");
        return;
    }
    *balls += 1;
    check(k2k_reply(me, message, message->kind, payload, message->len, NULL, NULL), "reply");
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: pong FABRIC\n");
        return 2;
    }
    k2k_config config = {.size = sizeof config, .kernels = 2, .slots = 64, .payload = 64};
    k2k_broker broker;
    k2k_endpoint me;
    unsigned long balls = 0;
    check(k2k_create_or_open(argv[1], &config, &broker), "open the fabric");
    check(k2k_register(broker, "pong", NULL, &me), "register");
    check(k2k_run(me, on_message, NULL, &balls, 0), "run");
    check(k2k_endpoint_close(me), "leave");
    check(k2k_broker_close(broker), "close the fabric");
    printf("%lu balls\n", balls);
    return 0;
}
