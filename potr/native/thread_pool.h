// SPDX-License-Identifier: Apache-2.0
// Loops shared by threads that sleep while they wait.
//
// OpenMP's threads meet at barriers and, unless an environment variable says otherwise, spin there: beside other busy
// programs they take from one another the time in which the work would be done. Here the caller works through the loop
// itself; helpers that the system has given a core meanwhile take their part of it. The caller waits, asleep, only for
// helpers that are in the middle of a stretch, never for one that has not come yet.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace potr {

class ThreadPool {
 public:
  // Calls body(first, last, worker) for stretches of at most `grain` that make up [0, count), on at most `threads`
  // threads, the caller among them. `worker` < threads, and no two calls at a time have the same. Which thread does
  // which stretch is chance: the stretches must not depend on one another. Rethrows what a call threw; then some
  // stretches are not done. May be called from several threads at once, and from within a body.
  template <class Body>
  static void run(int64_t count, int64_t grain, int threads, const Body& body) {
    if (count <= 0) return;
    const int64_t stretches = (count + grain - 1) / grain;
    Job job(count, grain, [](const void* of, int64_t first, int64_t last, int worker) {
      (*static_cast<const Body*>(of))(first, last, worker);
    }, &body);
    const int helpers = static_cast<int>(std::min<int64_t>(threads, stretches) - 1);
    if (helpers > 0)
      instance().share(job, helpers);
    else
      job.work(0);
    if (job.error) std::rethrow_exception(job.error);
  }

 private:
  struct Job {
    using Call = void (*)(const void* body, int64_t first, int64_t last, int worker);

    Job(int64_t count_, int64_t grain_, Call call_, const void* body_)
        : count(count_), grain(grain_), call(call_), body(body_) {}

    void work(int worker) {
      try {
        for (int64_t first; (first = next.fetch_add(grain, std::memory_order_relaxed)) < count;)
          call(body, first, std::min(first + grain, count), worker);
      } catch (...) {
        next.store(count, std::memory_order_relaxed);  // nobody begins another stretch
        const std::lock_guard lock(error_mutex);
        if (!error) error = std::current_exception();
      }
    }

    const int64_t count, grain;
    const Call call;
    const void* const body;
    std::atomic<int64_t> next{0};
    std::mutex error_mutex;
    std::exception_ptr error;
    // Under the pool's mutex:
    int wanted = 0;   // helpers that may still come
    int workers = 1;  // who have come, the caller included
    int inside = 0;   // helpers at work
    std::condition_variable left;
  };

  // One of each module. Never destroyed: its threads sleep until the process ends. A child of fork() has none of its
  // parent's threads and gets a pool of its own.
  static ThreadPool& instance() {
    static ThreadPool* pool = [] {
      pthread_atfork(nullptr, nullptr, [] { pool = new ThreadPool; });
      return new ThreadPool;
    }();
    return *pool;
  }

  void share(Job& job, int helpers) {
    {
      const std::lock_guard lock(mutex_);
      helpers = grow(helpers);
      job.wanted = helpers;
      if (helpers > 0) waiting_.push_back(&job);
    }
    for (int i = 0; i < helpers; ++i) came_.notify_one();
    job.work(0);
    std::unique_lock lock(mutex_);
    if (job.wanted > 0) waiting_.erase(std::find(waiting_.begin(), waiting_.end(), &job));
    job.left.wait(lock, [&] { return job.inside == 0; });
  }

  // How many of the helpers asked for there can be: fewer where the system gives no more threads.
  int grow(int helpers) {
    if (threads_ >= helpers) return helpers;
    sigset_t all, before;  // signals are for the program's own threads
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      for (; threads_ < helpers; ++threads_) std::thread([this] { serve(); }).detach();
    } catch (const std::system_error&) {
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return std::min(threads_, helpers);
  }

  void serve() {
    std::unique_lock lock(mutex_);
    for (;;) {
      came_.wait(lock, [&] { return !waiting_.empty(); });
      Job& job = *waiting_.front();
      if (--job.wanted == 0) waiting_.erase(waiting_.begin());
      ++job.inside;
      const int worker = job.workers++;
      lock.unlock();
      job.work(worker);
      lock.lock();
      if (--job.inside == 0) job.left.notify_one();  // locked: the job ends with its caller's wait
    }
  }

  std::mutex mutex_;
  std::condition_variable came_;
  std::vector<Job*> waiting_;  // jobs that want helpers, the oldest first
  int threads_ = 0;
};

}  // namespace potr
