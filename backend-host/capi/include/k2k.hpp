// K2K for C++17: k2k.h with owners that close, results that are a value or an error, and messages of plain types.
//
// No call throws, but Result::value() of an error, and whatever a handler throws comes out of Endpoint::run().

#ifndef K2K_HPP
#define K2K_HPP

#include "k2k.h"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace k2k {

using KernelId = k2k_kernel_id;
using MessageId = k2k_message_id;
using Nanoseconds = std::chrono::nanoseconds;

// A wait without a limit.
inline constexpr Nanoseconds forever = Nanoseconds::max();

// Why a call did not do what it was asked: a code, and the library's words.
class Error {
public:
    Error(k2k_result code, std::string message) : code_(code), message_(std::move(message)) {}

    // The last failure on this thread.
    static Error last(k2k_result code) { return Error(code, k2k_error_message()); }

    k2k_result code() const noexcept { return code_; }
    const std::string& message() const noexcept { return message_; }
    const char* name() const noexcept { return k2k_result_name(code_); }
    // Of K2K_NOT_RECEIVED and K2K_NO_ANSWER: what became of the request.
    std::uint32_t status = 0;
    // Of K2K_REFUSED: the service's number.
    std::uint32_t refused = 0;
    bool is(k2k_result code) const noexcept { return code_ == code; }

private:
    k2k_result code_;
    std::string message_;
};

// What Result::value() throws.
class Failed : public std::runtime_error {
public:
    explicit Failed(Error error)
        : std::runtime_error(std::string(error.name()) + ": " + error.message()), error_(std::move(error)) {}
    const Error& error() const noexcept { return error_; }

private:
    Error error_;
};

// A value, or the reason why there is none.
template <class T>
class [[nodiscard]] Result {
public:
    Result(T value) : held_(std::in_place_index<0>, std::move(value)) {}
    Result(Error error) : held_(std::in_place_index<1>, std::move(error)) {}

    bool has_value() const noexcept { return held_.index() == 0; }
    explicit operator bool() const noexcept { return has_value(); }

    // The value; throws Failed if there is none.
    T& value() & { return check(), std::get<0>(held_); }
    const T& value() const& { return check(), std::get<0>(held_); }
    T&& value() && { return check(), std::get<0>(std::move(held_)); }
    template <class U>
    T value_or(U&& other) const& {
        return has_value() ? std::get<0>(held_) : static_cast<T>(std::forward<U>(other));
    }
    T& operator*() & { return value(); }
    const T& operator*() const& { return value(); }
    T&& operator*() && { return std::move(*this).value(); }
    T* operator->() { return &value(); }
    const T* operator->() const { return &value(); }

    // The reason; only if there is no value.
    const Error& error() const { return std::get<1>(held_); }

private:
    void check() const {
        if (!has_value()) {
            throw Failed(std::get<1>(held_));
        }
    }
    std::variant<T, Error> held_;
};

// Nothing, or the reason why it was not done.
template <>
class [[nodiscard]] Result<void> {
public:
    Result() = default;
    Result(Error error) : error_(std::move(error)) {}
    bool has_value() const noexcept { return !error_.has_value(); }
    explicit operator bool() const noexcept { return has_value(); }
    void value() const {
        if (error_) {
            throw Failed(*error_);
        }
    }
    const Error& error() const { return error_.value(); }

private:
    std::optional<Error> error_;
};

namespace detail {

template <class Rep, class Period>
std::uint64_t to_ns(std::chrono::duration<Rep, Period> time) {
    if (time <= time.zero()) {
        return 0;
    }
    // In seconds first, since the conversion of a long time to ns would overflow.
    if (std::chrono::duration<double>(time) >= std::chrono::duration<double>(forever)) {
        return K2K_FOREVER;
    }
    return static_cast<std::uint64_t>(std::chrono::duration_cast<Nanoseconds>(time).count());
}

template <class T>
constexpr void check_plain() {
    static_assert(std::is_trivially_copyable_v<T>, "a message carries bytes: its type must be trivially copyable");
    static_assert(!std::is_pointer_v<T>, "a pointer means nothing in another process: send the value");
}

inline Result<void> done(k2k_result result) {
    if (result == K2K_OK) {
        return {};
    }
    return Error::last(result);
}

} // namespace detail

// Settings of a new fabric: zero is the default of each.
struct Config : k2k_config {
    Config() : k2k_config{} { size = sizeof(k2k_config); }
};

// How a kernel registers: zero is the default of each.
struct Registration : k2k_registration {
    Registration() : k2k_registration{} { size = sizeof(k2k_registration); }
};

// How a message is sent: zero is the default of each.
struct SendOptions : k2k_send_options {
    SendOptions() : k2k_send_options{} { size = sizeof(k2k_send_options); }
    SendOptions& high() { return priority = K2K_PRIORITY_HIGH, *this; }
    SendOptions& waiting() { return wait_for_room = 1, *this; }
    SendOptions& correlated(std::uint64_t id) { return correlation_id = id, *this; }
    template <class Rep, class Period>
    SendOptions& within(std::chrono::duration<Rep, Period> time) {
        // 0 would be the fabric's timeout: the shortest is 1 ns.
        timeout_ns = detail::to_ns(time);
        timeout_ns = timeout_ns == 0 ? 1 : timeout_ns;
        return *this;
    }
};

// A received message, as long as a handler runs: the payload is the library's.
class MessageView {
public:
    MessageView(const k2k_message& header, const void* payload) : header_(header), payload_(payload) {}

    const k2k_message& header() const noexcept { return header_; }
    KernelId source() const noexcept { return header_.source; }
    std::uint32_t kind() const noexcept { return header_.kind; }
    const void* data() const noexcept { return payload_; }
    std::size_t size() const noexcept { return header_.len; }

    // The payload as a plain value, if it has its size.
    template <class T>
    Result<T> value() const {
        detail::check_plain<T>();
        if (size() != sizeof(T)) {
            return Error(K2K_BAD_ARGUMENT, "message carries " + std::to_string(size()) +
                                               " bytes, but the type asked for has " + std::to_string(sizeof(T)));
        }
        static_assert(std::is_default_constructible_v<T>, "a value is made first and then filled with the payload");
        T value{};
        std::memcpy(static_cast<void*>(&value), payload_, sizeof(T));
        return value;
    }

private:
    k2k_message header_;
    const void* payload_;
};

// A received message with its payload.
class Message {
public:
    Message() : header_{} { header_.size = sizeof(k2k_message); }

    const k2k_message& header() const noexcept { return header_; }
    KernelId source() const noexcept { return header_.source; }
    std::uint32_t kind() const noexcept { return header_.kind; }
    const std::vector<std::byte>& payload() const noexcept { return payload_; }
    std::string text() const { return std::string(reinterpret_cast<const char*>(payload_.data()), payload_.size()); }
    MessageView view() const noexcept { return MessageView(header_, payload_.data()); }
    template <class T>
    Result<T> value() const {
        return view().template value<T>();
    }

private:
    friend class Endpoint;
    k2k_message header_;
    std::vector<std::byte> payload_;
};

// A kernel: for one thread at a time. Closed when it is destroyed.
class Endpoint {
public:
    Endpoint(Endpoint&& other) noexcept
        : handle_(std::exchange(other.handle_, k2k_endpoint{0})), capacity_(other.capacity_) {}
    Endpoint& operator=(Endpoint&& other) noexcept {
        if (this != &other) {
            close();
            handle_ = std::exchange(other.handle_, k2k_endpoint{0});
            capacity_ = other.capacity_;
        }
        return *this;
    }
    Endpoint(const Endpoint&) = delete;
    Endpoint& operator=(const Endpoint&) = delete;
    ~Endpoint() { close(); }

    // Leaves, as the destructor does.
    void close() noexcept {
        if (handle_.handle != 0) {
            k2k_endpoint_close(handle_);
            handle_ = k2k_endpoint{0};
        }
    }

    k2k_endpoint raw() const noexcept { return handle_; }

    Result<KernelId> id() const {
        KernelId id = 0;
        return given(k2k_endpoint_id(handle_, &id), id);
    }

    Result<MessageId> send(KernelId to, std::uint32_t kind, const void* data, std::size_t len,
                           const SendOptions& options = {}) {
        MessageId id{};
        return given(k2k_send(handle_, to, kind, data, len, &options, &id), id);
    }
    template <class T>
    Result<MessageId> send_value(KernelId to, std::uint32_t kind, const T& value, const SendOptions& options = {}) {
        detail::check_plain<T>();
        return send(to, kind, &value, sizeof(T), options);
    }

    Result<MessageId> reply(const k2k_message& request, std::uint32_t kind, const void* data, std::size_t len,
                            const SendOptions& options = {}) {
        MessageId id{};
        return given(k2k_reply(handle_, &request, kind, data, len, &options, &id), id);
    }
    template <class T>
    Result<MessageId> reply_value(const k2k_message& request, std::uint32_t kind, const T& value,
                                  const SendOptions& options = {}) {
        detail::check_plain<T>();
        return reply(request, kind, &value, sizeof(T), options);
    }
    // Answers no, as services of the Rust library do.
    Result<MessageId> refuse(const k2k_message& request, std::uint32_t number) {
        return reply(request, K2K_REFUSAL, &number, sizeof number);
    }

    // The next message; K2K_TIMEOUT if none comes.
    template <class Rep, class Period>
    Result<Message> receive(std::chrono::duration<Rep, Period> timeout) {
        Message message;
        message.payload_.resize(capacity_);
        k2k_result result = k2k_receive(handle_, &message.header_, message.payload_.data(), capacity_,
                                        detail::to_ns(timeout));
        if (result != K2K_OK) {
            return Error::last(result);
        }
        message.payload_.resize(message.header_.len);
        return message;
    }
    Result<Message> try_receive() { return receive(Nanoseconds::zero()); }

    // A request and its answer: see k2k_request.
    template <class Rep, class Period>
    Result<Message> request(KernelId to, std::uint32_t kind, const void* data, std::size_t len,
                            std::chrono::duration<Rep, Period> timeout) {
        Message answer;
        answer.payload_.resize(capacity_);
        std::uint32_t status = 0;
        k2k_result result = k2k_request(handle_, to, kind, data, len, detail::to_ns(timeout), &answer.header_,
                                        answer.payload_.data(), capacity_, &status);
        if (result != K2K_OK) {
            Error error = Error::last(result);
            error.status = status;
            return error;
        }
        answer.payload_.resize(answer.header_.len);
        return answer;
    }

    // A typed request: Answer ask<Answer>(to, kind, question, timeout). A refusal is the error K2K_REFUSED.
    template <class Answer, class Question, class Rep, class Period>
    Result<Answer> ask(KernelId to, std::uint32_t kind, const Question& question,
                       std::chrono::duration<Rep, Period> timeout) {
        detail::check_plain<Question>();
        detail::check_plain<Answer>();
        Result<Message> answer = request(to, kind, &question, sizeof question, timeout);
        if (!answer) {
            return answer.error();
        }
        if (answer->kind() == K2K_REFUSAL) {
            std::uint32_t number = answer->template value<std::uint32_t>().value_or(K2K_REFUSED_UNKNOWN_KIND);
            Error error(K2K_REFUSED, "the service refused with " + std::to_string(number));
            error.refused = number;
            return error;
        }
        return answer->template value<Answer>();
    }

    // What became of a message: one of the K2K_STATUS_ numbers.
    Result<std::uint32_t> receipt(MessageId id) {
        std::uint32_t status = 0;
        return given(k2k_receipt(handle_, id, &status), status);
    }

    template <class Rep, class Period>
    Result<KernelId> wait_for_kernel(const std::string& name, std::chrono::duration<Rep, Period> timeout) {
        KernelId id = 0;
        return given(k2k_endpoint_wait_for_kernel(handle_, name.c_str(), detail::to_ns(timeout), &id), id);
    }

    // For loops around poll(2) or epoll: a descriptor that becomes readable when there may be something to receive. Call it
    // each time after receive() found nothing; do not wait if `wait` is false.
    struct Armed {
        int descriptor;
        bool wait;
    };
    Result<Armed> arm() {
        int descriptor = -1, wait = 0;
        const auto result = k2k_arm(handle_, &descriptor, &wait);
        return given(result, Armed{descriptor, wait != 0});
    }

    Result<std::uint64_t> poll() {
        std::uint64_t passed = 0;
        return given(k2k_poll(handle_, &passed), passed);
    }

    // Runs the kernel on this thread until stop() in the handler, or a command of a supervisor: calls
    // handler(Endpoint&, const MessageView&) for each message. An exception of the handler ends the loop and comes out.
    template <class Handler>
    Result<void> run(Handler&& handler, Nanoseconds heartbeat = std::chrono::milliseconds(250)) {
        struct State {
            Endpoint* endpoint;
            std::remove_reference_t<Handler>* handler;
            std::exception_ptr thrown;
        } state{this, &handler, nullptr};
        k2k_result result = k2k_run(
            handle_,
            [](void* user, k2k_endpoint endpoint, const k2k_message* message, const void* payload) {
                State& state = *static_cast<State*>(user);
                // After the first exception the rest of the inbox is left alone.
                if (state.thrown) {
                    return;
                }
                try {
                    (*state.handler)(*state.endpoint, MessageView(*message, payload));
                } catch (...) {
                    state.thrown = std::current_exception();
                    k2k_stop(endpoint);
                }
            },
            nullptr, &state, detail::to_ns(heartbeat));
        if (state.thrown) {
            std::rethrow_exception(state.thrown);
        }
        return detail::done(result);
    }

    // In the handler: lets run() end after this message.
    Result<void> stop() { return detail::done(k2k_stop(handle_)); }

private:
    friend class Broker;
    Endpoint(k2k_endpoint handle, std::size_t capacity) : handle_(handle), capacity_(capacity) {}

    template <class T>
    static Result<T> given(k2k_result result, const T& value) {
        if (result != K2K_OK) {
            return Error::last(result);
        }
        return value;
    }

    k2k_endpoint handle_;
    // The longest payload of the fabric.
    std::size_t capacity_;
};

// A fabric. May be used by several threads at once. Closed when it is destroyed; its endpoints stay open.
class Broker {
public:
    // In a new file; see k2k_create.
    static Result<Broker> create(const std::string& name, const Config& config = {}) {
        k2k_broker handle{0};
        return made(k2k_create(name.c_str(), &config, &handle), handle);
    }
    // In memory of this process alone.
    static Result<Broker> heap(const Config& config = {}) {
        k2k_broker handle{0};
        return made(k2k_create(nullptr, &config, &handle), handle);
    }
    static Result<Broker> open(const std::string& name) {
        k2k_broker handle{0};
        return made(k2k_open(name.c_str(), &handle), handle);
    }
    static Result<Broker> create_or_open(const std::string& name, const Config& config = {}) {
        k2k_broker handle{0};
        return made(k2k_create_or_open(name.c_str(), &config, &handle), handle);
    }
    static Result<void> remove(const std::string& name) { return detail::done(k2k_remove(name.c_str())); }

    Broker(Broker&& other) noexcept
        : handle_(std::exchange(other.handle_, k2k_broker{0})), shape_(other.shape_) {}
    Broker& operator=(Broker&& other) noexcept {
        if (this != &other) {
            close();
            handle_ = std::exchange(other.handle_, k2k_broker{0});
            shape_ = other.shape_;
        }
        return *this;
    }
    Broker(const Broker&) = delete;
    Broker& operator=(const Broker&) = delete;
    ~Broker() { close(); }

    void close() noexcept {
        if (handle_.handle != 0) {
            k2k_broker_close(handle_);
            handle_ = k2k_broker{0};
        }
    }

    k2k_broker raw() const noexcept { return handle_; }
    const k2k_shape& shape() const noexcept { return shape_; }

    Result<Endpoint> register_kernel(const std::string& name, const Registration& registration = {}) const {
        k2k_endpoint handle{0};
        k2k_result result = k2k_register(handle_, name.c_str(), &registration, &handle);
        if (result != K2K_OK) {
            return Error::last(result);
        }
        return Endpoint(handle, shape_.payload);
    }

    Result<KernelId> find(const std::string& name) const {
        KernelId id = 0;
        return Endpoint::given(k2k_find(handle_, name.c_str(), &id), id);
    }
    template <class Rep, class Period>
    Result<KernelId> wait_for_kernel(const std::string& name, std::chrono::duration<Rep, Period> timeout) const {
        KernelId id = 0;
        return Endpoint::given(k2k_wait_for_kernel(handle_, name.c_str(), detail::to_ns(timeout), &id), id);
    }
    template <class Rep, class Period>
    Result<void> wait_until_gone(KernelId kernel, std::chrono::duration<Rep, Period> timeout) const {
        return detail::done(k2k_wait_until_gone(handle_, kernel, detail::to_ns(timeout)));
    }

    Result<void> command(KernelId kernel, std::uint32_t command) const {
        return detail::done(k2k_command(handle_, kernel, command));
    }
    Result<void> set_route(KernelId at, KernelId destination, KernelId next_hop) const {
        return detail::done(k2k_set_route(handle_, at, destination, next_hop));
    }
    Result<std::uint64_t> reap() const {
        std::uint64_t reaped = 0;
        return Endpoint::given(k2k_reap(handle_, &reaped), reaped);
    }
    // The counters of a kernel; of all together for 0.
    Result<k2k_stats> stats(KernelId kernel = 0) const {
        k2k_stats stats{};
        stats.size = sizeof stats;
        return Endpoint::given(k2k_broker_stats(handle_, kernel, &stats), stats);
    }
    Result<std::uint64_t> pending() const {
        std::uint64_t pending = 0;
        return Endpoint::given(k2k_broker_pending(handle_, &pending), pending);
    }

private:
    explicit Broker(k2k_broker handle) : handle_(handle), shape_{} { shape_.size = sizeof shape_; }

    static Result<Broker> made(k2k_result result, k2k_broker handle) {
        if (result != K2K_OK) {
            return Error::last(result);
        }
        Broker broker(handle);
        result = k2k_broker_shape(handle, &broker.shape_);
        if (result != K2K_OK) {
            return Error::last(result);
        }
        return Result<Broker>(std::move(broker));
    }

    k2k_broker handle_;
    k2k_shape shape_;
};

} // namespace k2k

#endif // K2K_HPP
