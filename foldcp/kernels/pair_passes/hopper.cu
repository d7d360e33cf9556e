// Passes over pairs on Hopper: LayerNorm, matrix products, gates and residual in one read and one
// write.
//
// A block holds the weights on chip and some warpgroups. Each takes 64 pairs at a time and waits
// for no other; the pairs that come next are copied meanwhile. A thread holds the same channels of
// two pairs from its first load to its last store: those that a load of 16 bytes brings. The rows
// and columns of the weights are put in that order (`channel_of`), as the order of a sum does not
// matter, so that what the matrix unit gives is what it takes, and what is stored.
//
// -DPASS=1 projects, 2 projects with a gate, channels first, 3 adds the output of attention, 4 that
// of a triangle multiplication, 5 the transition, for which 6 lays out the weights as they lie on
// chip; 7 projects to at most 8 channels, channels first. -DZ_BYTES=2: pairs in bf16, 4: in fp32.

typedef unsigned short bf16;

constexpr int PAIRS = 64;     // of a warpgroup
constexpr int WIDTH = 128;    // channels of a pair
constexpr int STEPS = 8;      // of 16 channels
constexpr u32 TILE_BYTES = PAIRS * WIDTH * 2;     // pairs in bf16
constexpr u32 Z_TILE_BYTES = PAIRS * WIDTH * Z_BYTES;
constexpr u32 CHUNK_BYTES = 64 * WIDTH * 2;       // 64 rows of a matrix of weights
constexpr float LOG2E = 1.4426950408889634f;
constexpr float EPSILON = 1e-5f;

struct Arguments {         // strides in elements
  const char* z;
  char* out;               // z, or what is projected
  const char* other;       // attended, or product, or what 6 laid out, or the transition's third matrix
  const float* mask;       // by row or by column
  const float* norm_weight;
  const float* norm_bias;
  const float* norm_out_weight;
  const float* norm_out_bias;
  const bf16* first;       // [num_out, 128]: what is projected; the output
  const bf16* second;      // [num_out, 128]: the gate
  long long z_row, z_column, out_row, out_column, other_row, other_column;
  int num_pairs, N, num_out, mask_by_row;
};

// ---- instructions ----

ON_CHIP void copy_16(u32 to, const void* from, bool real) {  // zeros where it is not real
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(real ? 16 : 0) : "memory");
}
ON_CHIP void copy_8(u32 to, const void* from, bool real) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(to), "l"(from), "r"(real ? 8 : 0) : "memory");
}
ON_CHIP void copies_wait() { asm volatile("cp.async.wait_all;" ::: "memory"); }
ON_CHIP void load_16(u32 (&x)[4], u32 from) {
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];" : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(from) : "memory");
}
ON_CHIP void load_8(u32& x, u32& y, u32 from) {
  asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];" : "=r"(x), "=r"(y) : "r"(from) : "memory");
}
ON_CHIP void store_16(void* to, u32 a, u32 b, u32 c, u32 d) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(a), "r"(b), "r"(c), "r"(d) : "memory");
}
ON_CHIP float low(u32 x) { return __uint_as_float(x << 16); }
ON_CHIP float high(u32 x) { return __uint_as_float(x & 0xffff0000u); }
ON_CHIP u32 pair_fp16(float low, float high) { u32 x; asm("cvt.rn.satfinite.f16x2.f32 %0, %1, %2;" : "=r"(x) : "f"(high), "f"(low)); return x; }
ON_CHIP float sigmoid(float x) {
  float y, z;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(-LOG2E * x));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(z) : "f"(1.0f + y));
  return z;
}

#define ALL_32(x) "+f"(x[0]), "+f"(x[1]), "+f"(x[2]), "+f"(x[3]), "+f"(x[4]), "+f"(x[5]), \
  "+f"(x[6]), "+f"(x[7]), "+f"(x[8]), "+f"(x[9]), "+f"(x[10]), "+f"(x[11]), "+f"(x[12]), \
  "+f"(x[13]), "+f"(x[14]), "+f"(x[15]), "+f"(x[16]), "+f"(x[17]), "+f"(x[18]), "+f"(x[19]), \
  "+f"(x[20]), "+f"(x[21]), "+f"(x[22]), "+f"(x[23]), "+f"(x[24]), "+f"(x[25]), "+f"(x[26]), \
  "+f"(x[27]), "+f"(x[28]), "+f"(x[29]), "+f"(x[30]), "+f"(x[31])
#define THE_32 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, " \
  "%17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}"

// sum [64, 64] (+)= 16 channels of pairs times weights
ON_CHIP void add_products(float (&sum)[32], const u32* x, u64 weights, int add) {
  asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %37, 0;\n"
               "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " THE_32
               ", {%32, %33, %34, %35}, %36, add, 1, 1, 0;\n}"
               : ALL_32(sum) : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "l"(weights), "r"(add));
}
// Registers of the matrix unit: the compiler moves no use of them past this point.
template <int SIZE>
ON_CHIP void hold(const u32 (&x)[SIZE][4]) {
  UNROLL for (int i = 0; i < SIZE; i++) asm volatile("" ::"r"(x[i][0]), "r"(x[i][1]), "r"(x[i][2]), "r"(x[i][3]) : "memory");
}

// ---- the order of channels ----

// The first of the four channels of step `s` that the threads `q` of four hold.
ON_CHIP constexpr int first_channel(int s, int q) {
  return Z_BYTES == 2 ? s / 2 * 32 + 8 * q + s % 2 * 4 : 16 * s + 4 * q;
}
// The channel at a place of the matrix unit's order.
ON_CHIP int channel_of(int place) {
  return place / 128 * 128 + first_channel(place % 128 / 16, place % 8 / 2) + place % 16 / 8 * 2 + place % 2;
}

// Rows of a matrix on chip, two halves of 64 columns one after the other; zeros from row `end` on.
ON_CHIP void keep(u32 to, const bf16* weights, int rows, bool order_rows, bool order_columns, int end) {
  _Pragma("unroll 8")
  for (int i = threadIdx.x; i < rows * WIDTH / 2; i += blockDim.x) {
    const int row = i / 64, column = i % 64 * 2;
    const int from = (order_rows ? channel_of(row) : row) * WIDTH + (order_columns ? channel_of(column) : column);
    const u32 x = row < end ? *reinterpret_cast<const u32*>(weights + from) : 0;
    const u32 at = to + column / 64 * rows * 128 + row * 128 + ((column % 64 / 8 ^ row % 8) << 4) + column % 8 * 2;
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(at), "r"(x) : "memory");
  }
}

ON_CHIP void keep_norm(u32 to, const float* weight, const float* bias) {
  for (int i = threadIdx.x; i < WIDTH; i += blockDim.x) {
    asm volatile("st.shared.f32 [%0], %1;" ::"r"(to + 4 * i), "f"(weight[i]) : "memory");
    asm volatile("st.shared.f32 [%0], %1;" ::"r"(to + 512 + 4 * i), "f"(bias[i]) : "memory");
  }
}

// ---- pairs ----

// What a thread does for two pairs, 8 apart: the lane's row of its warp's 16 and the one below.
struct Thread {
  int index, lane, q, pair;  // of the warpgroup's 128; lane % 4; the first of its two pairs of 64
};
ON_CHIP Thread this_thread() {
  const int index = threadIdx.x % 128, lane = index % 32;
  return {index, lane, lane % 4, index / 32 * 16 + lane / 4};
}

// Where the channels of a pair begin, in elements.
ON_CHIP long long place_of(int pair, int N, long long row_stride, long long column_stride) {
  const int row = (u32)pair / (u32)N;
  return row * row_stride + (pair - row * N) * column_stride;
}

// Start the copy of z into places that only this thread reads.
ON_CHIP void fetch_z(u32 slot, int tile, const Thread& t, const Arguments& a) {
  UNROLL for (int half = 0; half < 2; half++) {
    const int pair = tile * PAIRS + t.pair + 8 * half;
    const bool real = pair < a.num_pairs;
    const char* z = a.z + Z_BYTES * (real ? place_of(pair, a.N, a.z_row, a.z_column) : 0);
    constexpr int COPIES = WIDTH * Z_BYTES / 64;
    UNROLL for (int i = 0; i < COPIES; i++)
      copy_16(slot + (half * COPIES + i) * 2048 + t.index * 16, z + 64 * i + 16 * t.q, real);
  }
}

// Two pairs, as they were fetched.
ON_CHIP void read_z(float (&x)[STEPS][2][4], u32 slot, const Thread& t) {
  if (Z_BYTES == 2) {
    UNROLL for (int half = 0; half < 2; half++)
      UNROLL for (int j = 0; j < 4; j++) {
        u32 u[4];
        load_16(u, slot + (half * 4 + j) * 2048 + t.index * 16);
        UNROLL for (int i = 0; i < 4; i++) {
          x[2 * j + i / 2][half][i % 2 * 2] = low(u[i]);
          x[2 * j + i / 2][half][i % 2 * 2 + 1] = high(u[i]);
        }
      }
  } else {
    UNROLL for (int s = 0; s < STEPS; s++)
      UNROLL for (int half = 0; half < 2; half++) {
        u32 u[4];
        load_16(u, slot + (half * 8 + s) * 2048 + t.index * 16);
        UNROLL for (int i = 0; i < 4; i++) x[s][half][i] = __uint_as_float(u[i]);
      }
  }
}

ON_CHIP float sum_of_four(float x) {
  x += __shfl_xor_sync(~0u, x, 1);
  return x + __shfl_xor_sync(~0u, x, 2);
}

// LayerNorm, into the operand of the matrix unit: of channels in the threads' order or, PLAIN, as
// they come.
template <bool PLAIN>
ON_CHIP void normalise(u32 (&out)[STEPS][4], float (&x)[STEPS][2][4], u32 norm, const Thread& t) {
  UNROLL for (int half = 0; half < 2; half++) {
    float sum = 0.0f, squares = 0.0f;
    UNROLL for (int s = 0; s < STEPS; s++)
      UNROLL for (int i = 0; i < 4; i++) sum += x[s][half][i];
    const float mean = sum_of_four(sum) / WIDTH;
    UNROLL for (int s = 0; s < STEPS; s++)
      UNROLL for (int i = 0; i < 4; i++) {
        x[s][half][i] -= mean;
        squares += x[s][half][i] * x[s][half][i];
      }
    const float scale = rsqrtf(sum_of_four(squares) / WIDTH + EPSILON);
    UNROLL for (int s = 0; s < STEPS; s++)
      UNROLL for (int i = 0; i < 4; i++) x[s][half][i] *= scale;
  }
  UNROLL for (int s = 0; s < STEPS; s++) {
    u32 w[4], b[4];
    if (PLAIN) {
      UNROLL for (int i = 0; i < 2; i++) {
        load_8(w[2 * i], w[2 * i + 1], norm + 4 * (16 * s + 8 * i + 2 * t.q));
        load_8(b[2 * i], b[2 * i + 1], norm + 512 + 4 * (16 * s + 8 * i + 2 * t.q));
      }
    } else {
      load_16(w, norm + 4 * first_channel(s, t.q));
      load_16(b, norm + 512 + 4 * first_channel(s, t.q));
    }
    UNROLL for (int half = 0; half < 2; half++) {
      float y[4];
      UNROLL for (int i = 0; i < 4; i++) y[i] = fmaf(x[s][half][i], __uint_as_float(w[i]), __uint_as_float(b[i]));
      out[s][half] = pair_bf16(y[0], y[1]);
      out[s][2 + half] = pair_bf16(y[2], y[3]);
    }
  }
}

// Start sum [64, 64] = x times 64 rows of weights; `half` is where their other half begins. Units of
// 16 bytes.
ON_CHIP void multiply(float (&sum)[32], const u32 (&x)[STEPS][4], u32 weights, u32 half) {
  pin(sum);
  matrix_begin();
  UNROLL for (int s = 0; s < STEPS; s++)
    add_products(sum, x[s], operand_of_128(weights + s / 4 * half + s % 4 * 2), s > 0);
  matrix_commit();
}

// z + update for the 64 channels from `chunk` on.
template <typename Update>
ON_CHIP void add_to_z(u32 slot, int tile, int chunk, const Thread& t, const Arguments& a, const Update& update) {
  UNROLL for (int half = 0; half < 2; half++) {
    const int pair = tile * PAIRS + t.pair + 8 * half;
    const bool real = pair < a.num_pairs;
    char* out = a.out + Z_BYTES * (real ? place_of(pair, a.N, a.out_row, a.out_column) : 0);
    if (Z_BYTES == 2) {
      UNROLL for (int j = 0; j < 2; j++) {
        u32 u[4];
        load_16(u, slot + (half * 4 + chunk / 32 + j) * 2048 + t.index * 16);
        UNROLL for (int i = 0; i < 4; i++)
          u[i] = pair_bf16(low(u[i]) + update(2 * j + i / 2, half, i % 2 * 2), high(u[i]) + update(2 * j + i / 2, half, i % 2 * 2 + 1));
        if (real) store_16(out + 2 * (chunk + 32 * j + 8 * t.q), u[0], u[1], u[2], u[3]);
      }
    } else {
      UNROLL for (int s = 0; s < 4; s++) {
        u32 u[4];
        load_16(u, slot + (half * 8 + chunk / 16 + s) * 2048 + t.index * 16);
        UNROLL for (int i = 0; i < 4; i++) u[i] = __float_as_uint(__uint_as_float(u[i]) + update(s, half, i));
        if (real) store_16(out + 4 * (chunk + 16 * s + 4 * t.q), u[0], u[1], u[2], u[3]);
      }
    }
  }
}

// Where the matrix unit left the number of step `s`, pair `half` and channel `i` of four.
ON_CHIP constexpr int at(int s, int half, int i) { return (2 * s + i / 2) * 4 + half * 2 + i % 2; }

// sum [64, 8] (+)= 16 channels of pairs times weights
ON_CHIP void add_products(float (&sum)[4], const u32* x, u64 weights, int add) {
  asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %9, 0;\n"
               "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, {%4, %5, %6, %7}, %8, add, 1, 1, 0;\n}"
               : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
               : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "l"(weights), "r"(add));
}

#if PASS < 5 || PASS == 7
extern "C" __global__ void __launch_bounds__(THREADS, 1)
pass_over_pairs(const __grid_constant__ Arguments a) {
  extern __shared__ __align__(1024) unsigned char chip[];
  const u32 base = address_of(chip);
  const Thread t = this_thread();
  const int warpgroup = __shfl_sync(~0u, threadIdx.x / 128, 0);
  const int tiles = (a.num_pairs + PAIRS - 1) / PAIRS;
  const int step = gridDim.x * (THREADS / 128);
  int tile = blockIdx.x * (THREADS / 128) + warpgroup;

#if PASS == 1
  // out = first LayerNorm(z), in fp16, channels last
  const u32 weights = base, norm = base + a.num_out * WIDTH * 2, slot = norm + 1024 + warpgroup * Z_TILE_BYTES;
  if (tile < tiles) fetch_z(slot, tile, t, a);
  keep(weights, a.first, a.num_out, true, true, a.num_out);
  keep_norm(norm, a.norm_weight, a.norm_bias);
  publish();
  __syncthreads();
  const u32 half = a.num_out * 8;
  for (; tile < tiles; tile += step) {
    u32 x[STEPS][4];
    {
      float z[STEPS][2][4];
      copies_wait();
      read_z(z, slot, t);
      if (tile + step < tiles) fetch_z(slot, tile + step, t, a);
      normalise<false>(x, z, norm, t);
    }
    char* out[2];
    bool real[2];
    UNROLL for (int i = 0; i < 2; i++) {
      const int pair = tile * PAIRS + t.pair + 8 * i;
      real[i] = pair < a.num_pairs;
      out[i] = a.out + 2 * (real[i] ? place_of(pair, a.N, a.out_row, a.out_column) : 0) + (Z_BYTES == 2 ? 16 : 8) * t.q;
    }
    const auto store = [&](const float (&y)[32], int chunk) {
      UNROLL for (int i = 0; i < 2; i++) {
        if (!real[i]) continue;
        UNROLL for (int s = 0; s < 4; s++) {
          const u32 u = pair_fp16(y[at(s, i, 0)], y[at(s, i, 1)]), v = pair_fp16(y[at(s, i, 2)], y[at(s, i, 3)]);
          if (Z_BYTES == 4) {
            asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(out[i] + 2 * chunk + 32 * s), "r"(u), "r"(v) : "memory");
          } else if (s % 2) {
            store_16(out[i] + 2 * chunk + 64 * (s / 2), pair_fp16(y[at(s - 1, i, 0)], y[at(s - 1, i, 1)]),
                     pair_fp16(y[at(s - 1, i, 2)], y[at(s - 1, i, 3)]), u, v);
          }
        }
      }
    };
    for (int chunk = 0; chunk < a.num_out; chunk += 128) {
      float y[32], more[32];
      multiply(y, x, weights / 16 + chunk * 8, half);
      multiply(more, x, weights / 16 + (chunk + 64) * 8, half);
      matrix_wait<1>();
      pin(y);
      store(y, chunk);
      matrix_wait();
      hold(x);
      pin(more);
      store(more, chunk + 64);
    }
  }

#elif PASS == 2
  // out = (first x) sigmoid(second x) mask with x = LayerNorm(z), channels first
  const u32 values = base, gates = base + a.num_out * WIDTH * 2;
  const u32 stage = gates + a.num_out * WIDTH * 2 + warpgroup * 16384;
  const u32 slots = gates + a.num_out * WIDTH * 2 + THREADS / 128 * 16384;
  const u32 slot = slots + warpgroup * Z_TILE_BYTES, norm = slots + THREADS / 128 * Z_TILE_BYTES;
  if (tile < tiles) fetch_z(slot, tile, t, a);
  keep(values, a.first, a.num_out, false, true, a.num_out);
  keep(gates, a.second, a.num_out, false, true, a.num_out);
  keep_norm(norm, a.norm_weight, a.norm_bias);
  publish();
  __syncthreads();
  const u32 half = a.num_out * 8;
  u32 turn = 0;
  for (; tile < tiles; tile += step) {
    u32 x[STEPS][4];
    {
      float z[STEPS][2][4];
      copies_wait();
      read_z(z, slot, t);
      if (tile + step < tiles) fetch_z(slot, tile + step, t, a);
      normalise<false>(x, z, norm, t);
    }
    float mask[2];
    UNROLL for (int i = 0; i < 2; i++) {
      const int pair = tile * PAIRS + t.pair + 8 * i;
      const int row = (u32)pair / (u32)a.N;
      mask[i] = pair < a.num_pairs ? a.mask[a.mask_by_row ? row : pair - row * a.N] : 0.0f;
    }
    // While a chunk is gated and stored the matrix unit makes the gates of the next one.
    float y[32], gate[2][32];
    multiply(gate[0], x, gates / 16, half);
    matrix_wait();
    pin(gate[0]);
    const auto gated_chunk = [&](float (&mine)[32], float (&next)[32], int chunk, bool more) __attribute__((always_inline)) {
      multiply(y, x, values / 16 + chunk * 8, half);
      if (more) multiply(next, x, gates / 16 + (chunk + 64) * 8, half);
      UNROLL for (int i = 0; i < 32; i++) mine[i] = sigmoid(mine[i]) * mask[i / 2 % 2];
      if (more) matrix_wait<1>(); else matrix_wait();
      pin(y);
      UNROLL for (int i = 0; i < 32; i++) mine[i] *= y[i];
      // 64 channels of 64 pairs through the chip, where they are transposed
      const int matrix = t.lane / 8, row = t.lane % 8, column = t.index / 32 * 2 + matrix % 2;
      UNROLL for (int i = 0; i < 4; i++) {
        const u32 to = stage + turn + ((2 * i + matrix / 2) * 8 + row) * 128 + ((column ^ row) << 4);
        asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to),
                     "r"(pair_bf16(mine[8 * i], mine[8 * i + 1])), "r"(pair_bf16(mine[8 * i + 2], mine[8 * i + 3])),
                     "r"(pair_bf16(mine[8 * i + 4], mine[8 * i + 5])), "r"(pair_bf16(mine[8 * i + 6], mine[8 * i + 7])) : "memory");
      }
      warpgroup_sync(1 + warpgroup);
      UNROLL for (int i = 0; i < 4; i++) {
        const int channel = i * 16 + t.index / 8, part = t.index % 8, pair = tile * PAIRS + part * 8;
        u32 u[4];
        load_16(u, stage + turn + channel * 128 + ((part ^ channel % 8) << 4));
        if (pair < a.num_pairs) store_16(a.out + 2 * ((chunk + channel) * a.out_row + pair), u[0], u[1], u[2], u[3]);
      }
      turn ^= 8192;
      matrix_wait();
      hold(x);
      pin(next);
    };
    int chunk = 0;  // the last ones stand apart, as a branch would make the matrix unit wait
    for (; chunk < a.num_out - 128; chunk += 128) {
      gated_chunk(gate[0], gate[1], chunk, true);
      gated_chunk(gate[1], gate[0], chunk + 64, true);
    }
    gated_chunk(gate[0], gate[1], chunk, true);
    gated_chunk(gate[1], gate[0], chunk + 64, false);
  }

#elif PASS == 3
  // out = z + first (attended sigmoid(second LayerNorm(z)))
  const u32 outs = base, gates = base + 2 * CHUNK_BYTES, slots = base + 4 * CHUNK_BYTES;
  u32 slot = slots + warpgroup * Z_SLOTS * Z_TILE_BYTES, next = Z_SLOTS == 2 ? slot + Z_TILE_BYTES : slot;
  const u32 attended = slots + THREADS / 128 * Z_SLOTS * Z_TILE_BYTES + warpgroup * TILE_BYTES;
  const u32 norm = slots + THREADS / 128 * (Z_SLOTS * Z_TILE_BYTES + TILE_BYTES);
  const auto fetch_attended = [&](int tile) {
    UNROLL for (int half = 0; half < 2; half++) {
      const int pair = tile * PAIRS + t.pair + 8 * half;
      const bool real = pair < a.num_pairs;
      const char* from = a.other + 2 * (real ? place_of(pair, a.N, a.other_row, a.other_column) : 0);
      if (Z_BYTES == 2) {
        UNROLL for (int j = 0; j < 4; j++) copy_16(attended + (half * 4 + j) * 2048 + t.index * 16, from + 64 * j + 16 * t.q, real);
      } else {
        UNROLL for (int s = 0; s < STEPS; s++) copy_8(attended + (half * 8 + s) * 1024 + t.index * 8, from + 32 * s + 8 * t.q, real);
      }
    }
  };
  if (tile < tiles) {
    fetch_z(slot, tile, t, a);
    fetch_attended(tile);
  }
  keep(outs, a.first, WIDTH, true, true, WIDTH);
  keep(gates, a.second, WIDTH, true, true, WIDTH);
  keep_norm(norm, a.norm_weight, a.norm_bias);
  publish();
  __syncthreads();
  for (; tile < tiles; tile += step) {
    const bool more = tile + step < tiles;
    u32 x[STEPS][4], gated[STEPS][4];
    {
      float z[STEPS][2][4];
      copies_wait();
      read_z(z, slot, t);
      if (Z_SLOTS == 2 && more) fetch_z(next, tile + step, t, a);
      normalise<false>(x, z, norm, t);
    }
    {
      float gate[2][32];
      multiply(gate[0], x, gates / 16, WIDTH * 8);
      multiply(gate[1], x, gates / 16 + 64 * 8, WIDTH * 8);
      UNROLL for (int c = 0; c < 2; c++) {
        if (c == 0) matrix_wait<1>(); else matrix_wait();
        hold(x);
        pin(gate[c]);
        UNROLL for (int s = 0; s < 4; s++)
          UNROLL for (int half = 0; half < 2; half++) {
            u32 u[2];
            const int place = 4 * c + s;
            if (Z_BYTES == 2) load_8(u[0], u[1], attended + (half * 4 + place / 2) * 2048 + t.index * 16 + place % 2 * 8);
            else load_8(u[0], u[1], attended + (half * 8 + place) * 1024 + t.index * 8);
            UNROLL for (int i = 0; i < 2; i++)
              gated[place][2 * i + half] = pair_bf16(low(u[i]) * sigmoid(gate[c][at(s, half, 2 * i)]),
                                                     high(u[i]) * sigmoid(gate[c][at(s, half, 2 * i + 1)]));
          }
      }
    }
    if (more) fetch_attended(tile + step);
    {
      float y[2][32];
      multiply(y[0], gated, outs / 16, WIDTH * 8);
      multiply(y[1], gated, outs / 16 + 64 * 8, WIDTH * 8);
      UNROLL for (int c = 0; c < 2; c++) {
        if (c == 0) matrix_wait<1>(); else matrix_wait();
        hold(gated);
        pin(y[c]);
        add_to_z(slot, tile, 64 * c, t, a, [&](int s, int half, int i) { return y[c][at(s, half, i)]; });
      }
    }
    if (Z_SLOTS == 1 && more) fetch_z(slot, tile + step, t, a);
    const u32 used = slot;
    slot = next;
    next = used;
  }

#elif PASS == 4
  // out = z + (first LayerNorm_out(product)) sigmoid(second LayerNorm(z)); product has its channels first
  const u32 outs = base, gates = base + 2 * CHUNK_BYTES, slots = base + 4 * CHUNK_BYTES;
  const u32 product = slots + warpgroup * TILE_BYTES;
  u32 slot = slots + THREADS / 128 * TILE_BYTES + warpgroup * Z_SLOTS * Z_TILE_BYTES;
  u32 next = Z_SLOTS == 2 ? slot + Z_TILE_BYTES : slot;
  const u32 norm = slots + THREADS / 128 * (Z_SLOTS * Z_TILE_BYTES + TILE_BYTES), norm_out = norm + 1024;
  const auto fetch_product = [&](int tile) {
    UNROLL for (int i = 0; i < 8; i++) {
      const int channel = i * 16 + t.index / 8, part = t.index % 8, pair = tile * PAIRS + part * 8;
      const bool real = pair < a.num_pairs;
      copy_16(product + channel * 128 + ((part ^ channel % 8) << 4), a.other + 2 * (channel * a.other_row + (real ? pair : 0)), real);
    }
  };
  if (tile < tiles) {
    fetch_z(slot, tile, t, a);
    fetch_product(tile);
  }
  keep(outs, a.first, WIDTH, true, false, WIDTH);
  keep(gates, a.second, WIDTH, true, true, WIDTH);
  keep_norm(norm, a.norm_weight, a.norm_bias);
  keep_norm(norm_out, a.norm_out_weight, a.norm_out_bias);
  publish();
  __syncthreads();
  for (; tile < tiles; tile += step) {
    const bool more = tile + step < tiles;
    u32 x[STEPS][4], y[STEPS][4];
    copies_wait();
    warpgroup_sync(1 + warpgroup);
    {
      float p[STEPS][2][4];
      const int matrix = t.lane / 8, row = t.lane % 8, column = t.index / 32 * 2 + matrix % 2;
      UNROLL for (int s = 0; s < STEPS; s++) {
        u32 u[4];
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(u[0]), "=r"(u[1]), "=r"(u[2]), "=r"(u[3])
                     : "r"(product + (16 * s + matrix / 2 * 8 + row) * 128 + ((column ^ row) << 4)) : "memory");
        UNROLL for (int i = 0; i < 4; i++) {
          p[s][i % 2][i / 2 * 2] = low(u[i]);
          p[s][i % 2][i / 2 * 2 + 1] = high(u[i]);
        }
      }
      warpgroup_sync(1 + warpgroup);
      if (more) fetch_product(tile + step);
      if (Z_SLOTS == 2 && more) fetch_z(next, tile + step, t, a);
      normalise<true>(y, p, norm_out, t);
    }
    {
      float z[STEPS][2][4];
      read_z(z, slot, t);
      normalise<false>(x, z, norm, t);
    }
    UNROLL for (int c = 0; c < 2; c++) {
      float update[32], gate[32];
      multiply(gate, x, gates / 16 + c * 64 * 8, WIDTH * 8);
      multiply(update, y, outs / 16 + c * 64 * 8, WIDTH * 8);
      matrix_wait<1>();
      pin(gate);
      UNROLL for (int i = 0; i < 32; i++) gate[i] = sigmoid(gate[i]);
      matrix_wait();
      hold(x);
      hold(y);
      pin(update);
      add_to_z(slot, tile, 64 * c, t, a, [&](int s, int half, int i) { return update[at(s, half, i)] * gate[at(s, half, i)]; });
    }
    if (Z_SLOTS == 1 && more) fetch_z(slot, tile + step, t, a);
    const u32 used = slot;
    slot = next;
    next = used;
  }

#elif PASS == 7
  // out = first LayerNorm(z), at most 8 channels, channels first
  constexpr u32 EIGHT_ROWS = 8 * WIDTH * 2;
  const u32 norm = base + EIGHT_ROWS, slot = norm + 1024 + warpgroup * Z_TILE_BYTES;
  if (tile < tiles) fetch_z(slot, tile, t, a);
  keep(base, a.first, 8, false, true, a.num_out);
  keep_norm(norm, a.norm_weight, a.norm_bias);
  publish();
  __syncthreads();
  for (; tile < tiles; tile += step) {
    u32 x[STEPS][4];
    {
      float z[STEPS][2][4];
      copies_wait();
      read_z(z, slot, t);
      if (tile + step < tiles) fetch_z(slot, tile + step, t, a);
      normalise<false>(x, z, norm, t);
    }
    float y[4];
    pin(y);
    matrix_begin();
    UNROLL for (int s = 0; s < STEPS; s++) add_products(y, x[s], operand_of_128(base / 16 + s / 4 * (EIGHT_ROWS / 32) + s % 4 * 2), s > 0);
    matrix_commit();
    matrix_wait();
    hold(x);
    pin(y);
    UNROLL for (int i = 0; i < 4; i++) {
      const int channel = 2 * t.q + i % 2, pair = tile * PAIRS + t.pair + i / 2 * 8;
      if (channel < a.num_out && pair < a.num_pairs)
        *reinterpret_cast<bf16*>(a.out + 2 * (channel * a.out_row + pair)) = (bf16)pair_bf16(y[i], 0.0f);
    }
  }
#endif
}

#elif PASS == 6
extern "C" __global__ void __launch_bounds__(THREADS)
pass_over_pairs(const __grid_constant__ Arguments a) {
  constexpr int INTO = 128 * WIDTH, CHUNK = INTO + 64 * WIDTH;  // of 64 hidden channels
  const int i = blockIdx.x * THREADS + threadIdx.x;
  const int chunk = i / CHUNK, place = i % CHUNK;
  if (chunk >= a.num_out / 64) return;
  const bool into = place < INTO;
  const int row = (into ? place % (INTO / 2) : place - INTO) / 64;
  const int column = (place % 64 / 8 ^ row % 8) * 8 + place % 8;
  const bf16* from;
  if (into) {
    from = (row < 64 ? a.first : a.second) + (chunk * 64 + row % 64) * WIDTH + place / (INTO / 2) * 64 + column;
  } else {
    from = reinterpret_cast<const bf16*>(a.other) + channel_of(row) * a.num_out + chunk * 64 + column;
  }
  reinterpret_cast<bf16*>(a.out)[i] = *from;
}

#else
// out = z + third (silu(first x) (second x)) with x = LayerNorm(z): a block takes as many tiles of
// pairs as it has warpgroups but one, which brings the weights, 64 hidden channels at a time.

constexpr int WARPGROUPS = THREADS / 128 - 1;
constexpr int STAGES = 3;
constexpr u32 STAGE_BYTES = 3 * CHUNK_BYTES;

#define ALL_64(x) "+f"(x[0]), "+f"(x[1]), "+f"(x[2]), "+f"(x[3]), "+f"(x[4]), "+f"(x[5]), "+f"(x[6]), \
  "+f"(x[7]), "+f"(x[8]), "+f"(x[9]), "+f"(x[10]), "+f"(x[11]), "+f"(x[12]), "+f"(x[13]), \
  "+f"(x[14]), "+f"(x[15]), "+f"(x[16]), "+f"(x[17]), "+f"(x[18]), "+f"(x[19]), \
  "+f"(x[20]), "+f"(x[21]), "+f"(x[22]), "+f"(x[23]), "+f"(x[24]), "+f"(x[25]), \
  "+f"(x[26]), "+f"(x[27]), "+f"(x[28]), "+f"(x[29]), "+f"(x[30]), "+f"(x[31]), \
  "+f"(x[32]), "+f"(x[33]), "+f"(x[34]), "+f"(x[35]), "+f"(x[36]), "+f"(x[37]), \
  "+f"(x[38]), "+f"(x[39]), "+f"(x[40]), "+f"(x[41]), "+f"(x[42]), "+f"(x[43]), \
  "+f"(x[44]), "+f"(x[45]), "+f"(x[46]), "+f"(x[47]), "+f"(x[48]), "+f"(x[49]), \
  "+f"(x[50]), "+f"(x[51]), "+f"(x[52]), "+f"(x[53]), "+f"(x[54]), "+f"(x[55]), \
  "+f"(x[56]), "+f"(x[57]), "+f"(x[58]), "+f"(x[59]), "+f"(x[60]), "+f"(x[61]), \
  "+f"(x[62]), "+f"(x[63])
#define THE_64 "{" "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, " \
  "%18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, " \
  "%34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, " \
  "%50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63" "}"

// sum [64, 128] (+)= 16 channels of pairs on chip, or in registers, times weights
ON_CHIP void add_products(float (&sum)[64], u64 x, u64 weights, int add) {
  asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %66, 0;\n"
               "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " THE_64
               ", %64, %65, add, 1, 1, 0, 0;\n}"
               : ALL_64(sum) : "l"(x), "l"(weights), "r"(add));
}
ON_CHIP void add_products(float (&sum)[64], const u32* x, u64 weights) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " THE_64
               ", {%64, %65, %66, %67}, %68, 1, 1, 1, 0;"
               : ALL_64(sum) : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "l"(weights));
}

ON_CHIP void copy_bytes(u32 to, const void* from, u32 bytes, u32 barrier) {
  asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
               ::"r"(to), "l"(from), "r"(bytes), "r"(barrier) : "memory");
}

struct Stage {
  int index;
  u32 parity;
  ON_CHIP void advance() {
    if (++index == STAGES) { index = 0; parity ^= 1; }
  }
};

// Bring z of a later tile near; a thread takes the lines of half a pair.
ON_CHIP void bring_near(int tile, const Thread& t, const Arguments& a) {
  const int pair = tile * PAIRS + t.index / 2;
  if (pair >= a.num_pairs) return;
  const char* z = a.z + Z_BYTES * (place_of(pair, a.N, a.z_row, a.z_column) + t.index % 2 * 64);
  UNROLL for (int i = 0; i < Z_BYTES / 2; i++) asm volatile("prefetch.global.L2 [%0];" ::"l"(z + 128 * i));
}

// 16 bytes of z: four channels of a step in fp32, those of two steps in bf16.
ON_CHIP uint4 part_of_z(const char* z, int i) { return *reinterpret_cast<const uint4*>(z + 64 * i); }

ON_CHIP void transition(const Arguments& a, u32 base, int warpgroup) {
  const Thread t = this_thread();
  const u32 full = base + STAGES * STAGE_BYTES + WARPGROUPS * TILE_BYTES + 1024, empty = full + 8 * STAGES;
  const u32 mine = base + STAGES * STAGE_BYTES + warpgroup * TILE_BYTES, norm = base + STAGES * STAGE_BYTES + WARPGROUPS * TILE_BYTES;
  const int chunks = a.num_out / 64, tiles = (a.num_pairs + PAIRS - 1) / PAIRS;
  Stage stage = {0, 0};
  for (int first = blockIdx.x * WARPGROUPS; first < tiles; first += gridDim.x * WARPGROUPS) {
    const int tile = first + warpgroup;
    bring_near(tile + gridDim.x * WARPGROUPS, t, a);
    {
      float z[STEPS][2][4];
      UNROLL for (int half = 0; half < 2; half++) {
        const int pair = tile * PAIRS + t.pair + 8 * half;
        const bool real = pair < a.num_pairs;
        const char* from = a.z + Z_BYTES * (real ? place_of(pair, a.N, a.z_row, a.z_column) : 0) + 16 * t.q;
        UNROLL for (int i = 0; i < 2 * Z_BYTES; i++) {
          const uint4 part = part_of_z(from, i);
          const u32 u[4] = {part.x, part.y, part.z, part.w};
          UNROLL for (int j = 0; j < 4; j++) {
            if (Z_BYTES == 2) {
              z[2 * i + j / 2 & 7][half][j % 2 * 2] = real ? low(u[j]) : 0.0f;
              z[2 * i + j / 2 & 7][half][j % 2 * 2 + 1] = real ? high(u[j]) : 0.0f;
            } else {
              z[i][half][j] = real ? __uint_as_float(u[j]) : 0.0f;
            }
          }
        }
      }
      u32 x[STEPS][4];
      normalise<false>(x, z, norm, t);
      warpgroup_sync(1 + warpgroup);
      UNROLL for (int half = 0; half < 2; half++) {
        const int row = t.pair + 8 * half;
        UNROLL for (int s = 0; s < STEPS; s++) {
          const int channel = first_channel(s, t.q);
          const u32 to = mine + channel / 64 * (TILE_BYTES / 2) + row * 128 + ((channel % 64 / 8 ^ row % 8) << 4) + channel % 8 * 2;
          asm volatile("st.shared.v2.b32 [%0], {%1, %2};" ::"r"(to), "r"(x[s][half]), "r"(x[s][2 + half]) : "memory");
        }
      }
    }
    publish();
    warpgroup_sync(1 + warpgroup);
    float update[64];
    UNROLL for (int i = 0; i < 64; i++) update[i] = 0.0f;
    for (int chunk = 0; chunk < chunks; chunk++, stage.advance()) {
      const u32 weights = (base + stage.index * STAGE_BYTES) / 16;
      float both[64];  // what is gated and the values
      barrier_wait(full + 8 * stage.index, stage.parity);
      pin(both);
      matrix_begin();
      UNROLL for (int s = 0; s < STEPS; s++)
        add_products(both, operand_of_128(mine / 16 + s / 4 * 512 + s % 4 * 2), operand_of_128(weights + s / 4 * 1024 + s % 4 * 2), s > 0);
      matrix_commit();
      matrix_wait();
      pin(both);
      u32 hidden[4][4];
      UNROLL for (int i = 0; i < 16; i++)
        hidden[i / 4][i % 4] = pair_bf16(both[2 * i] * sigmoid(both[2 * i]) * both[32 + 2 * i],
                                         both[2 * i + 1] * sigmoid(both[2 * i + 1]) * both[33 + 2 * i]);
      pin(update);
      matrix_begin();
      UNROLL for (int s = 0; s < 4; s++) add_products(update, hidden[s], operand_of_128(weights + 2048 + s * 2));
      matrix_commit();
      matrix_wait();
      hold(hidden);
      pin(update);
      if (t.index == 0) barrier_arrive(empty + 8 * stage.index);
    }
    UNROLL for (int half = 0; half < 2; half++) {
      const int pair = tile * PAIRS + t.pair + 8 * half;
      if (pair >= a.num_pairs) continue;
      const char* from = a.z + Z_BYTES * place_of(pair, a.N, a.z_row, a.z_column) + 16 * t.q;
      char* out = a.out + Z_BYTES * place_of(pair, a.N, a.out_row, a.out_column) + 16 * t.q;
      UNROLL for (int i = 0; i < 2 * Z_BYTES; i++) {
        const uint4 part = part_of_z(from, i);
        u32 u[4] = {part.x, part.y, part.z, part.w};
        UNROLL for (int j = 0; j < 4; j++) {
          if (Z_BYTES == 2) {
            const int s = 2 * i + j / 2 & 7;
            u[j] = pair_bf16(low(u[j]) + update[at(s, half, j % 2 * 2)], high(u[j]) + update[at(s, half, j % 2 * 2 + 1)]);
          } else {
            u[j] = __float_as_uint(__uint_as_float(u[j]) + update[at(i, half, j)]);
          }
        }
        store_16(out + 64 * i, u[0], u[1], u[2], u[3]);
      }
    }
  }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
pass_over_pairs(const __grid_constant__ Arguments a) {
  extern __shared__ __align__(1024) unsigned char chip[];
  const u32 base = __shfl_sync(~0u, address_of(chip), 0);
  const int warpgroup = __shfl_sync(~0u, threadIdx.x / 128, 0);
  const u32 full = base + STAGES * STAGE_BYTES + WARPGROUPS * TILE_BYTES + 1024, empty = full + 8 * STAGES;
  keep_norm(base + STAGES * STAGE_BYTES + WARPGROUPS * TILE_BYTES, a.norm_weight, a.norm_bias);
  if (threadIdx.x == 0) {
    for (int i = 0; i < STAGES; i++) {
      barrier_init(full + 8 * i, 1);
      barrier_init(empty + 8 * i, WARPGROUPS);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  // The registers of four warpgroups, 128 a thread, go to the three that compute.
  if (warpgroup == WARPGROUPS) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
    if (threadIdx.x != WARPGROUPS * 128) return;
    const int chunks = a.num_out / 64, tiles = (a.num_pairs + PAIRS - 1) / PAIRS;
    Stage stage = {0, 1};
    for (int first = blockIdx.x * WARPGROUPS; first < tiles; first += gridDim.x * WARPGROUPS)
      for (int chunk = 0; chunk < chunks; chunk++, stage.advance()) {
        barrier_wait(empty + 8 * stage.index, stage.parity);
        copy_bytes(base + stage.index * STAGE_BYTES, a.other + chunk * STAGE_BYTES, STAGE_BYTES, full + 8 * stage.index);
      }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 160;");
    transition(a, base, warpgroup);
  }
}
#endif
