// How a long call ends early: the core tells its watch how much work it does, the watch now and then lets the
// signals that Python has received be handled, and when a handler raises, all threads of the call stop.
//
// Python's handlers run in place, in the thread that Python gives them, and the call goes on where they return.
// Nothing is computed twice, however often a timer fires, and no handler of ours stands in the way of Python's.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace hotnas {

/// Thrown out of the core when the call that it works for shall end.
struct Stopped {};

/// One thread's part in a call; without a `stop` it never ends early.
struct Watch {
  std::atomic<bool>* stop = nullptr;  // shared by the threads of the call
  bool asks = false;                  // whether this thread handles Python's signals
  std::chrono::steady_clock::time_point asked{};
  std::int64_t left = 0;  // work until the next look, in entries of a matrix
};

/// A watch for this thread, which handles signals if it is the one that Python gives them.
Watch watch_of_thread(std::atomic<bool>& stop);

/// Handles signals when it is time for that; throws Stopped when the call shall end.
void look(Watch& watch);

/// Tells the watch of work. Always inlined: the units of all instruction sets include it, and a copy of its own would
/// be shared by them.
[[gnu::always_inline]] inline void spend(Watch& watch, std::int64_t work) {
  if ((watch.left -= work) < 0) look(watch);
}

}  // namespace hotnas
