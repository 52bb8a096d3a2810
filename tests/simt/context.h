// SPDX-License-Identifier: Apache-2.0
// Switching between stacks. POSIX's swapcontext does it anywhere, with a system call; on x86-64 a dozen instructions do
// (System V ABI: rbx, rbp, r12 to r15 and the stack survive a call; the FPU's control words stay as they are). Part of
// simt.h. Unlike longjmp, a call that returns on the other stack keeps the processor's prediction of returns right.
#pragma once

#include <stddef.h>

#if defined(__x86_64__) && !defined(SIMT_PORTABLE)

extern "C" __attribute__((visibility("hidden"))) void simt_switch_stack(void** from, void* to);
asm(R"(
  .text
  .hidden simt_switch_stack
  .globl simt_switch_stack
  .type simt_switch_stack, @function
simt_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size simt_switch_stack, .-simt_switch_stack
)");

namespace simt {

struct Context {
  void* stack_pointer;

  // To be entered at `entry`, which never returns; `stack + bytes` is a multiple of 16.
  void start(char* stack, size_t bytes, void (*entry)()) {
    void** top = reinterpret_cast<void**>(stack + bytes);
    *--top = nullptr;  // where entry would return to
    *--top = reinterpret_cast<void*>(entry);
    for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
    stack_pointer = top;
  }
};
inline void switch_context(Context& from, Context& to) { simt_switch_stack(&from.stack_pointer, to.stack_pointer); }

}  // namespace simt

#else

#include <ucontext.h>

namespace simt {

struct Context {
  ucontext_t context;

  void start(char* stack, size_t bytes, void (*entry)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = bytes;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
  }
};
inline void switch_context(Context& from, Context& to) { swapcontext(&from.context, &to.context); }

}  // namespace simt

#endif
