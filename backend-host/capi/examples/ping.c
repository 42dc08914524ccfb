/* Plays ping-pong with the kernel "pong" of a fabric in a file, whichever language that is written in.
 *
 *     ping FABRIC [ROUND_TRIPS]
 *
 * Creates the fabric unless it is there: so ping and pong start in any order. pong.c is the other half, and so is
 * `ping_pong pong FABRIC park` of the Rust examples.
 */
#include <k2k.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { BALL = 1, GOODBYE = 2 };

static const uint64_t PATIENCE_NS = 10 * UINT64_C(1000000000);

/* Ends the program with the library's words if a call has failed. */
static void check(k2k_result result, const char *what) {
    if (result != K2K_OK) {
        fprintf(stderr, "ping: %s: %s: %s\n", what, k2k_result_name(result), k2k_error_message());
        exit(1);
    }
}

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: ping FABRIC [ROUND_TRIPS]\n");
        return 2;
    }
    uint64_t round_trips = argc == 3 ? strtoull(argv[2], NULL, 10) : 10000;

    /* Zero is the default of everything that is not named. */
    k2k_config config = {.size = sizeof config, .kernels = 2, .slots = 64, .payload = 64};
    k2k_broker broker;
    k2k_endpoint me;
    k2k_kernel_id pong;
    check(k2k_create_or_open(argv[1], &config, &broker), "open the fabric");
    check(k2k_register(broker, "ping", NULL, &me), "register");
    check(k2k_endpoint_wait_for_kernel(me, "pong", PATIENCE_NS, &pong), "wait for pong");

    double began = now_s();
    for (uint64_t number = 0; number < round_trips; number++) {
        k2k_message_id sent;
        k2k_message ball = {.size = sizeof ball};
        uint64_t back;
        check(k2k_send(me, pong, BALL, &number, sizeof number, NULL, &sent), "send");
        check(k2k_receive(me, &ball, &back, sizeof back, PATIENCE_NS), "receive");
        if (ball.len != sizeof back || back != number || ball.correlation_id != sent.sequence) {
            fprintf(stderr, "ping: sent ball %" PRIu64 ", and %" PRIu64 " came back\n", number, back);
            return 1;
        }
    }
    double took = now_s() - began;
    check(k2k_send(me, pong, GOODBYE, NULL, 0, NULL, NULL), "say goodbye");
    printf("%" PRIu64 " round trips, %.2f us each\n", round_trips, took * 1e6 / (double)round_trips);

    check(k2k_wait_until_gone(broker, pong, PATIENCE_NS), "wait until pong has left");
    check(k2k_endpoint_close(me), "leave");
    check(k2k_broker_close(broker), "close the fabric");
    return 0;
}
