// Typed requests in C++, with services and clients in any language.
//
//     typed ask FABRIC      asks the service "double", which a Rust program or `typed serve` may be
//     typed serve FABRIC    is that service, until a supervisor stops it
//
// A request is a plain struct, and its kind says which. A refusal and a lack of an answer are different errors.

#include <k2k.hpp>

#include <cstdint>
#include <iostream>
#include <string>

using namespace std::chrono_literals;

// A request of the kind 5: the answer is twice the number.
struct Double {
    static constexpr std::uint32_t kind = 5;
    std::uint64_t number;
};

// The service's no.
constexpr std::uint32_t ODD = 3;

static void ask(const std::string& fabric) {
    k2k::Broker broker = k2k::Broker::open(fabric).value();
    k2k::Endpoint me = broker.register_kernel("asker").value();
    k2k::KernelId service = me.wait_for_kernel("double", 10s).value();
    for (std::uint64_t number = 0; number < 200; number += 2) {
        auto answer = me.ask<std::uint64_t>(service, Double::kind, Double{number}, 10s).value();
        if (answer != 2 * number) {
            throw std::runtime_error("twice " + std::to_string(number) + " is not " + std::to_string(answer));
        }
    }
    auto odd = me.ask<std::uint64_t>(service, Double::kind, Double{7}, 10s);
    if (odd || !odd.error().is(K2K_REFUSED) || odd.error().refused != ODD) {
        throw std::runtime_error("7 is odd");
    }
    std::cout << "double(7): " << odd.error().message() << "\n";
    auto unknown = me.ask<std::uint64_t>(service, 99, Double{7}, 10s);
    if (unknown || unknown.error().refused != K2K_REFUSED_UNKNOWN_KIND) {
        throw std::runtime_error("there is no request of the kind 99");
    }
    std::cout << "100 answers are right\n";
}

static void serve(const std::string& fabric) {
    k2k::Broker broker = k2k::Broker::open(fabric).value();
    k2k::Endpoint me = broker.register_kernel("double").value();
    std::uint64_t answered = 0;
    me.run([&](k2k::Endpoint& me, const k2k::MessageView& request) {
          if (request.kind() != Double::kind) {
              me.refuse(request.header(), K2K_REFUSED_UNKNOWN_KIND).value();
              return;
          }
          auto given = request.value<Double>();
          if (!given) {
              me.refuse(request.header(), K2K_REFUSED_WRONG_SIZE).value();
          } else if (given->number % 2 == 1) {
              me.refuse(request.header(), ODD).value();
          } else {
              me.reply_value(request.header(), Double::kind, 2 * given->number).value();
              answered++;
          }
      }).value();
    std::cout << answered << " answers\n";
}

int main(int argc, char** argv) {
    std::string what = argc == 3 ? argv[1] : "";
    if (what != "ask" && what != "serve") {
        std::cerr << "usage: typed ask|serve FABRIC\n";
        return 2;
    }
    try {
        what == "ask" ? ask(argv[2]) : serve(argv[2]);
    } catch (const std::exception& e) {
        std::cerr << "typed: " << e.what() << "\n";
        return 1;
    }
    return 0;
}
