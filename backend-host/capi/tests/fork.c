/* A forked process: its parent's handles refuse, and it registers a kernel of its own in the file. */
#include <k2k.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXPECT(call, expected)                                                                                        \
    do {                                                                                                              \
        k2k_result found = (call);                                                                                    \
        if (found != (expected)) {                                                                                    \
            fprintf(stderr, "%s: %s, %s\n", #call, k2k_result_name(found), k2k_error_message());                      \
            exit(1);                                                                                                  \
        }                                                                                                             \
    } while (0)

int main(int argc, char **argv) {
    if (argc != 2) {
        return 2;
    }
    k2k_broker broker, own;
    k2k_endpoint parent, child;
    k2k_kernel_id to;
    char buffer[192];
    k2k_message message = {.size = sizeof message};
    EXPECT(k2k_create(argv[1], NULL, &broker), K2K_OK);
    EXPECT(k2k_register(broker, "parent", NULL, &parent), K2K_OK);
    EXPECT(k2k_endpoint_id(parent, &to), K2K_OK);
    EXPECT(k2k_send(parent, to, 1, "kept", 4, NULL, NULL), K2K_OK);
    pid_t pid = fork();
    if (pid == 0) {
        EXPECT(k2k_send(parent, to, 1, NULL, 0, NULL, NULL), K2K_FORKED);
        EXPECT(k2k_receive(parent, &message, buffer, sizeof buffer, K2K_FOREVER), K2K_FORKED);
        EXPECT(k2k_request(parent, to, 1, NULL, 0, K2K_FOREVER, &message, buffer, sizeof buffer, NULL), K2K_FORKED);
        EXPECT(k2k_register(broker, "child", NULL, &child), K2K_FORKED);
        EXPECT(k2k_endpoint_close(parent), K2K_OK);
        EXPECT(k2k_broker_close(broker), K2K_OK);
        EXPECT(k2k_open(argv[1], &own), K2K_OK);
        EXPECT(k2k_register(own, "child", NULL, &child), K2K_OK);
        EXPECT(k2k_send(child, to, 2, "mine", 4, NULL, NULL), K2K_OK);
        EXPECT(k2k_endpoint_close(child), K2K_OK);
        EXPECT(k2k_broker_close(own), K2K_OK);
        return 0;
    }
    int status = 1;
    if (waitpid(pid, &status, 0) != pid || status != 0) {
        fprintf(stderr, "the child ended with %d\n", status);
        return 1;
    }
    const char *expected[] = {"kept", "mine"};
    for (int i = 0; i < 2; i++) {
        EXPECT(k2k_receive(parent, &message, buffer, sizeof buffer, 0), K2K_OK);
        if (message.len != 4 || memcmp(buffer, expected[i], 4) != 0) {
            fprintf(stderr, "message %d is another one\n", i);
            return 1;
        }
    }
    EXPECT(k2k_endpoint_close(parent), K2K_OK);
    EXPECT(k2k_broker_close(broker), K2K_OK);
    puts("ok");
    return 0;
}
