#include "watch.h"

#include <dlfcn.h>
#include <pthread.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/syscall.h>
#endif

namespace hotnas {
namespace {

using Clock = std::chrono::steady_clock;

/// Looks are some ten microseconds apart, and cost the time that it takes to read a clock.
constexpr std::int64_t work_between_looks = 1 << 16;
/// Handling signals takes the lock of the interpreter, for which other threads may have to be waited.
constexpr auto time_between_signals = std::chrono::milliseconds(100);

/// What this needs of the interpreter's stable interface, found in the process: the library has no Python symbols,
/// and runs in processes without Python.
class Python {
 public:
  Python() {
    find(is_initialized_, "Py_IsInitialized");
    find(take_lock_, "PyGILState_Ensure");
    find(leave_lock_, "PyGILState_Release");
    find(handle_signals_, "PyErr_CheckSignals");
    find(fetch_, "PyErr_Fetch");
    find(restore_, "PyErr_Restore");
    find(call_later_, "Py_AddPendingCall");
  }

  bool runs() const { return complete_ && is_initialized_() != 0; }

  /// Runs the handlers of signals that arrived. Whether one raised; the interpreter then raises the same as soon as
  /// it goes on in this thread.
  bool handler_raised() const {
    const int lock = take_lock_();
    const bool raised = handle_signals_() != 0;
    if (raised) {
      Raised* error = new Raised{*this, nullptr, nullptr, nullptr};
      fetch_(&error->type, &error->value, &error->traceback);
      if (call_later_(&raise, error) != 0)
        delete error;  // too many wait; the operator's error must do
    }
    leave_lock_(lock);
    return raised;
  }

 private:
  struct Raised {
    const Python& python;
    void *type, *value, *traceback;
  };

  static int raise(void* later) {
    const Raised error = *static_cast<Raised*>(later);
    delete static_cast<Raised*>(later);
    error.python.restore_(error.type, error.value, error.traceback);
    return -1;
  }

  template <class F>
  void find(F*& function, const char* name) {
    function = reinterpret_cast<F*>(dlsym(RTLD_DEFAULT, name));
    complete_ = complete_ && function != nullptr;
  }

  bool complete_ = true;
  int (*is_initialized_)();
  int (*take_lock_)();
  void (*leave_lock_)(int);
  int (*handle_signals_)();
  void (*fetch_)(void**, void**, void**);
  void (*restore_)(void*, void*, void*);
  int (*call_later_)(int (*)(void*), void*);
};

const Python& python() {
  static const Python found;
  return found;
}

/// Python handles signals in the first thread of a process, and in no other.
bool is_first_thread() {
#if defined(__linux__)
  return syscall(SYS_gettid) == getpid();
#elif defined(__APPLE__)
  return pthread_main_np() != 0;
#else
  return false;
#endif
}

}  // namespace

Watch watch_of_thread(std::atomic<bool>& stop) {
  return {&stop, is_first_thread() && python().runs(), Clock::now(), work_between_looks};
}

void look(Watch& watch) {
  watch.left = work_between_looks;
  if (watch.asks) {
    const auto now = Clock::now();
    if (now - watch.asked >= time_between_signals) {
      if (python().handler_raised()) *watch.stop = true;
      watch.asked = Clock::now();
    }
  }
  if (watch.stop != nullptr && *watch.stop) throw Stopped{};
}

}  // namespace hotnas
