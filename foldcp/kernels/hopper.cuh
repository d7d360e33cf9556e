// Instructions of Hopper that the kernels in CUDA C++ have in common; put before each of them.

typedef unsigned int u32;
typedef unsigned long long u64;
#define ON_CHIP __device__ __forceinline__
#define UNROLL _Pragma("unroll")

struct alignas(64) TensorMap { u64 opaque[16]; };

ON_CHIP u32 address_of(const void* p) { return (u32)__cvta_generic_to_shared(p); }
ON_CHIP void warpgroup_sync(int barrier) { asm volatile("bar.sync %0, 128;" ::"r"(barrier) : "memory"); }
// What threads have stored on chip is seen by the matrix unit.
ON_CHIP void publish() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// ---- barriers on chip ----

ON_CHIP void barrier_init(u32 barrier, u32 arrivals) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}
ON_CHIP void barrier_expect(u32 barrier, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
ON_CHIP void barrier_arrive(u32 barrier) {
  asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(barrier) : "memory");
}
ON_CHIP void barrier_wait(u32 barrier, u32 parity) {
  asm volatile("{\n.reg .pred done;\nAGAIN:\nmbarrier.try_wait.parity.shared.b64 done, [%0], %1;\n"
               "@!done bra AGAIN;\n}" ::"r"(barrier), "r"(parity) : "memory");
}

// The stage after this one of COUNT, whose barriers have another parity in every round.
template <int COUNT>
ON_CHIP int following(int stage, u32& parity) {
  if (stage + 1 < COUNT) return stage + 1;
  parity ^= 1;
  return 0;
}

// ---- the matrix unit ----

ON_CHIP void matrix_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
ON_CHIP void matrix_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int LEFT = 0>
ON_CHIP void matrix_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory"); }
// Rows of 128 bytes on chip, swizzled, as an operand; the address in units of 16 bytes.
ON_CHIP u64 operand_of_128(u32 address) {
  u64 descriptor;
  asm("mov.b64 %0, {%1, %2};" : "=l"(descriptor) : "r"(address), "n"((1024 >> 4) | (1 << 30)));
  return descriptor;
}
// Registers of the matrix unit: the compiler moves no use of them past this point.
template <int N> ON_CHIP void pin(float (&x)[N]) { UNROLL for (int i = 0; i < N; i++) asm volatile("" : "+f"(x[i])::"memory"); }

// ---- numbers ----

ON_CHIP float exp2_of(float x) { float y; asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
ON_CHIP float inverse(float x) { float y; asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
ON_CHIP u32 pair_bf16(float low, float high) { u32 x; asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(x) : "f"(high), "f"(low)); return x; }

