// What k2k.hpp adds to k2k.h: owners that close, results, typed messages, and exceptions of handlers.
#include <k2k.hpp>

#include <iostream>
#include <memory>

using namespace std::chrono_literals;

#define EXPECT(what)                                                                                                  \
    do {                                                                                                              \
        if (!(what)) {                                                                                                \
            std::cerr << __LINE__ << ": not so: " << #what << "; last error: " << k2k_error_message() << "\n";        \
            std::exit(1);                                                                                             \
        }                                                                                                             \
    } while (0)

struct Point {
    std::int32_t x, y;
};

// A type that has no default and no copy may be the value of a result.
static_assert(std::is_move_constructible_v<k2k::Result<std::unique_ptr<int>>>);
static_assert(!std::is_copy_constructible_v<k2k::Endpoint> && std::is_nothrow_move_constructible_v<k2k::Endpoint>);

static k2k::Broker small() {
    k2k::Config config;
    config.kernels = 3;
    config.slots = 2;
    config.payload = 64;
    return k2k::Broker::heap(config).value();
}

static void owners_close() {
    k2k::Broker broker = small();
    EXPECT(broker.shape().kernels == 3 && broker.shape().payload == 64);
    {
        k2k::Endpoint first = broker.register_kernel("a").value();
        k2k::Endpoint moved = std::move(first);
        EXPECT(first.raw().handle == 0 && moved.id());
        EXPECT(first.id().error().is(K2K_BAD_HANDLE));
        EXPECT(broker.register_kernel("a").error().is(K2K_NAME_IN_USE));
        k2k::Endpoint other = broker.register_kernel("b").value();
        // Closes what was there.
        moved = std::move(other);
        EXPECT(broker.find("a").error().code() == K2K_NOT_FOUND && broker.find("b"));
    }
    EXPECT(!broker.find("b"));
    EXPECT(k2k::Broker::open("k2k-capi-is-not-there").error().name() == std::string("K2K_FILE_NOT_FOUND"));
}

static void messages_have_types() {
    k2k::Broker broker = small();
    k2k::Endpoint a = broker.register_kernel("a").value(), b = broker.register_kernel("b").value();
    k2k::KernelId to = b.id().value();
    auto id = a.send_value(to, 7, Point{3, -4}, k2k::SendOptions().within(10s).correlated(5)).value();
    EXPECT(a.receipt(id).value() == K2K_STATUS_PENDING);
    k2k::Message got = b.receive(10s).value();
    EXPECT(got.kind() == 7 && got.header().correlation_id == 5 && got.source() == a.id().value());
    EXPECT(got.value<Point>()->y == -4 && got.view().size() == sizeof(Point));
    EXPECT(got.value<std::uint16_t>().error().message() == "message carries 8 bytes, but the type asked for has 2");
    EXPECT(a.receipt(id).value() == K2K_STATUS_DELIVERED);
    EXPECT(b.reply(got.header(), 8, "text", 4));
    EXPECT(a.try_receive()->text() == "text");
    EXPECT(a.try_receive().error().is(K2K_TIMEOUT));
    auto armed = a.arm().value();
    EXPECT(armed.descriptor >= 0 && armed.wait);
    EXPECT(b.send(a.id().value(), 9, nullptr, 0) && !a.arm()->wait && a.try_receive()->kind() == 9);

    EXPECT(a.send(to, 1, nullptr, 0) && a.send(to, 2, nullptr, 0));
    EXPECT(a.send(to, 3, nullptr, 0).error().is(K2K_QUEUE_FULL));
    EXPECT(a.send(to, 3, nullptr, 0, k2k::SendOptions().waiting().within(5ms)).error().is(K2K_TIMEOUT));
    EXPECT(a.send(to, 4, nullptr, 0, k2k::SendOptions().high()));
    EXPECT(b.try_receive()->kind() == 4 && b.try_receive()->kind() == 1 && b.try_receive()->kind() == 2);
    char large[65] = {};
    EXPECT(a.send(to, 1, large, sizeof large).error().is(K2K_PAYLOAD_TOO_LONG));
    auto unanswered = a.ask<Point>(to, 1, Point{}, 5ms);
    EXPECT(unanswered.error().is(K2K_NOT_RECEIVED) && unanswered.error().status == K2K_STATUS_TIMEOUT);
    EXPECT(broker.stats()->sent == 7 && broker.stats(to)->received == 4);
}

static void results_throw_only_when_asked() {
    k2k::Broker broker = small();
    try {
        broker.find("nobody").value();
        EXPECT(!"thrown");
    } catch (const k2k::Failed& e) {
        EXPECT(e.error().is(K2K_NOT_FOUND));
        EXPECT(e.what() == std::string("K2K_NOT_FOUND: no kernel is registered as \"nobody\""));
    }
    EXPECT(broker.find("nobody").value_or(7) == 7);
    auto late = broker.wait_for_kernel("nobody", 1ms);
    EXPECT(late.error().is(K2K_TIMEOUT));
    try {
        broker.command(0, K2K_COMMAND_STOP).value();
        EXPECT(!"thrown");
    } catch (const k2k::Failed&) {
    }
}

static void exceptions_of_handlers_come_out() {
    k2k::Broker broker = small();
    k2k::Endpoint a = broker.register_kernel("a").value(), b = broker.register_kernel("b").value();
    k2k::KernelId to = b.id().value();
    EXPECT(a.send(to, 1, nullptr, 0) && a.send(to, 2, nullptr, 0));
    int handled = 0;
    auto handler = [&](k2k::Endpoint& me, const k2k::MessageView& message) {
        handled++;
        EXPECT(me.receive(0s).error().is(K2K_IN_USE));
        if (message.kind() == 1) {
            throw std::logic_error("one");
        }
        EXPECT(me.stop());
    };
    try {
        b.run(handler).value();
        EXPECT(!"thrown");
    } catch (const std::logic_error& e) {
        EXPECT(e.what() == std::string("one") && handled == 1);
    }
    // The next message is there for the next loop.
    EXPECT(b.run(handler) && handled == 2);
    EXPECT(broker.command(to, K2K_COMMAND_STOP) && b.run(handler) && handled == 2);
    EXPECT(b.receive(k2k::forever).error().is(K2K_STOPPED));
}

int main() {
    owners_close();
    messages_have_types();
    results_throw_only_when_asked();
    exceptions_of_handlers_come_out();
    std::cout << "ok\n";
    return 0;
}
