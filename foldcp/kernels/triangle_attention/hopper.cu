// Attention of many rows under one bias on Hopper.
//
// A block holds four warpgroups that weigh and one thread that copies. It takes work by work: some
// tiles of 64 queries of some rows under one head. Each warpgroup has one tile of two rows, whose
// scores it makes alternately, so that a tile of the bias on chip serves all rows and a tile of keys all
// queries of the block. While a warpgroup weighs, the matrix unit works for the others; of the four
// warps that share a scheduler two make exponentials at a time, by turns, while two wait for products.
//
// WIDTH, channels of a head: 32 or 48. ROWS and QUERY_TILES of a block: 4 and 2, or 2 and 4. STAGES:
// tiles of keys, values and bias on chip.
//
// Scores are fp16 in units of log 2 and lie close to zero where weights are large: the matrix unit
// adds q.k to bias - shift, and `shift` is the row's largest bias, corrected by what q.k adds to it.
// Weights need no conversion on their way to the matrix unit, and the bias none from chip to score.
// Tiles of queries whose scores leave the range where that is exact are marked in `redo`.

constexpr int TILE = 64;         // queries or keys
constexpr int WARPGROUPS = 4;    // that weigh
static_assert(ROWS % 2 == 0 && ROWS / 2 * QUERY_TILES == WARPGROUPS, "a tile of two rows each");
// A row of a tile on chip is as wide as its swizzle, so that a head is one part or several.
constexpr int CHANNELS = WIDTH == 32 ? 32 : 16;  // of a part
constexpr int PARTS = WIDTH / CHANNELS;
constexpr u32 PART_BYTES = TILE * CHANNELS * 2;
constexpr u32 TILE_BYTES = PARTS * PART_BYTES; // of queries, keys or values of one row and head
constexpr int STEPS = WIDTH / 16;              // of the matrix unit over the channels of a head
constexpr bool QUERIES_IN_REGISTERS = WIDTH == 32;  // there is no room for more
constexpr bool FEW_ROWS = ROWS == 2;
constexpr u32 BIAS_BYTES = TILE * TILE * 2;
constexpr u32 VALUES = ROWS * TILE_BYTES;      // where they begin in a stage, after the keys
constexpr u32 BIAS = 2 * VALUES;
constexpr u32 STAGE_BYTES = BIAS + QUERY_TILES * BIAS_BYTES;
constexpr u32 QUERIES = STAGES * STAGE_BYTES;  // where they begin on chip
constexpr u32 QUERY_BYTES = ROWS * QUERY_TILES * TILE_BYTES;  // by tile, then row
constexpr u32 MAXIMA = QUERIES + QUERY_BYTES;
constexpr u32 MAXIMA_BYTES = QUERY_TILES * TILE * 4;
constexpr u32 BARRIERS = MAXIMA + MAXIMA_BYTES;  // STAGES x full, STAGES x empty, queries full, empty
constexpr u32 WORK = BARRIERS + 16 * STAGES + 16;
constexpr u32 TURNS = WORK + 16;  // barriers, one a warp
static_assert(TURNS + 8 * 4 * WARPGROUPS == SHARED_BYTES, "the launch gives as much");
constexpr bool IN_TURN = !FEW_ROWS;        // which pays off where all warps have as much to do
constexpr int CUBICS = FEW_ROWS ? 0 : 2;   // of the 16 registers of a thread's scores, see cubic_exp2_2
static_assert(STAGES >= 2, "the next tile is waited for before the last one is given back");

constexpr u32 LOG2E = 0x3DC53DC5;   // twice, in fp16
constexpr float ROOM = 1.0f;        // the first scores are at most -1
constexpr float LIMIT = 512.0f;     // of 16 weights: beyond it the shift is corrected
constexpr float FAR = -4.0f;        // the largest score of a first tile that tells nothing of others
constexpr float EXACT = 64.0f;      // corrections beyond it are left to another kernel
constexpr float SMALLEST = 0.01f;   // and sums of weights below it

struct Arguments {
  const char* bias;      // fp16 [heads, query_tiles, key_tiles, 64 * 64], in fragment order
  const float* maxima;   // [heads, queries], of the bias
  char* out;             // bf16, strides in elements
  float* lse;            // [rows, heads, num_queries] or null
  int* redo;             // [rows, heads, query_tiles]
  int* tickets;          // work taken and blocks done; both are zero between launches
  long long out_row;
  int out_token, out_head;
  int num_rows, num_queries, num_heads, query_tiles, key_tiles;
  int maxima_row;
  int group;             // blocks of neighbouring rows side by side, to meet in the cache
  float scale;           // log2(e) / sqrt(WIDTH)
};

// ---- instructions ----

ON_CHIP bool any_of_warpgroup(bool x, int barrier) {
  u32 any;
  asm volatile("{\n.reg .pred mine, all;\nsetp.ne.u32 mine, %1, 0;\nbar.red.or.pred all, %2, 128, mine;\n"
               "selp.u32 %0, 1, 0, all;\n}" : "=r"(any) : "r"((u32)x), "r"(barrier) : "memory");
  return any;
}
// a tile of tokens of ROWS rows
ON_CHIP void copy_tiles(u32 to, const TensorMap* map, u32 barrier, int token, int head, int row) {
  asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes "
               "[%0], [%1, {%3, %4, %5, %6}], [%2];"
               ::"r"(to), "l"(map), "r"(barrier), "r"(0), "r"(token), "r"(head * PARTS), "r"(row) : "memory");
}
ON_CHIP void copy_bytes(u32 to, const void* from, u32 bytes, u32 barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
               ::"r"(to), "l"(from), "r"(bytes), "r"(barrier) : "memory");
}

// A tile on chip as an operand: rows of 64 or 32 bytes, swizzled; the address in units of 16 bytes.
// Eight rows on is the next of its pieces, and for the channels of values the next part.
ON_CHIP u64 operand(u32 address) {
  constexpr u32 eight_rows = 8 * CHANNELS * 2 >> 4, swizzle = CHANNELS == 32 ? 2 : 3;
  u64 descriptor;
  asm("mov.b64 %0, {%1, %2};" : "=l"(descriptor)
      : "r"(address | PART_BYTES >> 4 << 16), "n"(eight_rows | swizzle << 30));
  return descriptor;
}
// 16 channels on, in units of 16 bytes
ON_CHIP constexpr u32 step_of(int step) { return CHANNELS == 32 ? 2 * step : step * PART_BYTES / 16; }

#define ALL_16(type, x) type(x[0]), type(x[1]), type(x[2]), type(x[3]), type(x[4]), type(x[5]), \
  type(x[6]), type(x[7]), type(x[8]), type(x[9]), type(x[10]), type(x[11]), type(x[12]), \
  type(x[13]), type(x[14]), type(x[15])
#define THE_16 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}"
#define ALL_24(type, x) ALL_16(type, x), type(x[16]), type(x[17]), type(x[18]), type(x[19]), \
  type(x[20]), type(x[21]), type(x[22]), type(x[23])
#define THE_24 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, " \
  "%18, %19, %20, %21, %22, %23}"

// scores [64, 64] += 16 channels of queries times keys
ON_CHIP void add_products(u32 (&scores)[16], const u32* q, u64 keys) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f16.f16.f16 " THE_16
               ", {%16, %17, %18, %19}, %20, 1, 1, 1, 0;"
               : ALL_16("+r", scores) : "r"(q[0]), "r"(q[1]), "r"(q[2]), "r"(q[3]), "l"(keys));
}
ON_CHIP void add_products(u32 (&scores)[16], u64 queries, u64 keys) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f16.f16.f16 " THE_16
               ", %16, %17, 1, 1, 1, 0, 0;"
               : ALL_16("+r", scores) : "l"(queries), "l"(keys));
}
// out [64, 32] or [64, 48] += weights of 16 keys times values
ON_CHIP void add_products(float (&out)[16], const u32* weights, u64 values) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 " THE_16
               ", {%16, %17, %18, %19}, %20, 1, 1, 1, 1;"
               : ALL_16("+f", out)
               : "r"(weights[0]), "r"(weights[1]), "r"(weights[2]), "r"(weights[3]), "l"(values));
}
ON_CHIP void add_products(float (&out)[24], const u32* weights, u64 values) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n48k16.f32.f16.f16 " THE_24
               ", {%24, %25, %26, %27}, %28, 1, 1, 1, 1;"
               : ALL_24("+f", out)
               : "r"(weights[0]), "r"(weights[1]), "r"(weights[2]), "r"(weights[3]), "l"(values));
}
// Registers of the matrix unit: the compiler moves no use of them past this point.
ON_CHIP void pin(u32 (&x)[16]) { UNROLL for (int i = 0; i < 16; i++) asm volatile("" : "+r"(x[i])::"memory"); }

// pairs of fp16
ON_CHIP u32 fma2(u32 a, u32 b, u32 c) { u32 d; asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c)); return d; }
ON_CHIP u32 add2(u32 a, u32 b) { u32 c; asm("add.rn.f16x2 %0, %1, %2;" : "=r"(c) : "r"(a), "r"(b)); return c; }
ON_CHIP u32 sub2(u32 a, u32 b) { u32 c; asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(c) : "r"(a), "r"(b)); return c; }
ON_CHIP u32 mul2(u32 a, u32 b) { u32 c; asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(c) : "r"(a), "r"(b)); return c; }
ON_CHIP u32 max2(u32 a, u32 b) { u32 c; asm("max.f16x2 %0, %1, %2;" : "=r"(c) : "r"(a), "r"(b)); return c; }
ON_CHIP u32 exp2_2(u32 a) { u32 b; asm("ex2.approx.f16x2 %0, %1;" : "=r"(b) : "r"(a)); return b; }
// NaN stays what it is.
ON_CHIP u32 clamp2(u32 x, u32 smallest, u32 largest) {
  u32 y;
  asm("{\n.reg .b32 t;\nmax.NaN.f16x2 t, %1, %2;\nmin.NaN.f16x2 %0, t, %3;\n}" : "=r"(y) : "r"(x), "r"(smallest), "r"(largest));
  return y;
}
// exp2_2 without the exponential unit, an idea of FlashAttention 4 (arXiv 2603.05451): 2^x = 2^n 2^f, n
// the nearest whole number, of 2^f a cubic polynomial. Relative error 1.1e-4, with roundings 6e-4. It
// overflows to infinity beyond 6.5, and `weigh` lowers such scores.
ON_CHIP u32 cubic_exp2_2(u32 x) {
  x = clamp2(x, 0xCE00CE00, 0x47004700);     // -24, of which the result is 0, to 7
  const u32 shifted = add2(x, 0x66186618);   // x + 1536 + 24, in whole numbers: its last five bits are n + 24
  const u32 f = sub2(x, sub2(shifted, 0x66186618));
  // The coefficients 1, 0.6934, 0.2422 and 0.0546 times 2^-9: as an exponent n + 24 is n + 9.
  const u32 cubic = fma2(fma2(fma2(f, 0x06FF06FF, 0x0FC00FC0), f, 0x158C158C), f, 0x18001800);
  return mul2(cubic, shifted << 10 & 0x7C007C00);
}
ON_CHIP u32 pair(float low, float high) { u32 x; asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(x) : "f"(high), "f"(low)); return x; }
ON_CHIP float low(u32 x) { float y; asm("{.reg .b16 l, h;\nmov.b32 {l, h}, %1;\ncvt.f32.f16 %0, l;}" : "=f"(y) : "r"(x)); return y; }
ON_CHIP float high(u32 x) { float y; asm("{.reg .b16 l, h;\nmov.b32 {l, h}, %1;\ncvt.f32.f16 %0, h;}" : "=f"(y) : "r"(x)); return y; }

// ---- the thread that copies ----

// Head, first tile of queries and first row of a piece of work; `rows` of them stay side by side.
struct Work { int head, tile, row; };

ON_CHIP Work work_of(int index, const Arguments& a) {
  const int row_groups = (a.num_rows + ROWS - 1) / ROWS;
  const int query_groups = (a.query_tiles + QUERY_TILES - 1) / QUERY_TILES;
  if constexpr (FEW_ROWS) {  // a last row without a second one, half the work, comes last
    const int of_rows = a.num_heads * query_groups;
    const int group = index / of_rows, place = index % of_rows;
    if (group >= row_groups) return {-1, 0, 0};  // no more
    return {place / query_groups, place % query_groups * QUERY_TILES, group * ROWS};
  }
  const int head = index / (row_groups * query_groups);
  if (head >= a.num_heads) return {-1, 0, 0};  // no more
  int place = index % (row_groups * query_groups);
  const int chunk = place / (a.group * query_groups);
  place -= chunk * a.group * query_groups;
  const int size = min(row_groups - chunk * a.group, a.group);
  return {head, place / size * QUERY_TILES, (chunk * a.group + place % size) * ROWS};
}

ON_CHIP void copy(const TensorMap& q, const TensorMap& k, const TensorMap& v, const Arguments& a, unsigned char* chip) {
  const u32 base = address_of(chip);
  const u32 full = base + BARRIERS, empty = full + 8 * STAGES, queries_full = empty + 8 * STAGES;
  int stage = 0;
  u32 parity = 1;
  int index = blockIdx.x;
  for (int count = 0;; count++) {
    const Work work = work_of(index, a);
    barrier_wait(queries_full + 8, (count & 1) ^ 1);
    *reinterpret_cast<volatile int*>(chip + WORK) = work.head;
    *reinterpret_cast<volatile int*>(chip + WORK + 4) = work.tile;
    *reinterpret_cast<volatile int*>(chip + WORK + 8) = work.row;
    if (work.head < 0) {
      barrier_arrive(queries_full);
      if (atomicAdd(a.tickets + 1, 1) == gridDim.x - 1) a.tickets[0] = a.tickets[1] = 0;
      return;
    }
    // Work is taken in its order, so that what runs at a time has keys and bias in common.
    index = gridDim.x + atomicAdd(a.tickets, 1);
    barrier_expect(queries_full, QUERY_BYTES + MAXIMA_BYTES);
    UNROLL for (int i = 0; i < QUERY_TILES; i++)
      copy_tiles(base + QUERIES + i * ROWS * TILE_BYTES, &q, queries_full, (work.tile + i) * TILE, work.head, work.row);
    copy_bytes(base + MAXIMA, a.maxima + (long long)work.head * a.maxima_row + work.tile * TILE, MAXIMA_BYTES, queries_full);
    const char* bias = a.bias + ((long long)work.head * a.query_tiles + work.tile) * a.key_tiles * BIAS_BYTES;
    const int last = a.query_tiles - 1 - work.tile;  // taken again where there are not as many
    for (int tile = 0; tile < a.key_tiles; tile++) {
      const u32 to = base + stage * STAGE_BYTES, barrier = full + 8 * stage;
      barrier_wait(empty + 8 * stage, parity);
      barrier_expect(barrier, STAGE_BYTES);
      copy_tiles(to, &k, barrier, tile * TILE, work.head, work.row);
      copy_tiles(to + VALUES, &v, barrier, tile * TILE, work.head, work.row);
      UNROLL for (int i = 0; i < QUERY_TILES; i++)
        copy_bytes(to + BIAS + i * BIAS_BYTES, bias + (long long)min(i, last) * a.key_tiles * BIAS_BYTES, BIAS_BYTES, barrier);
      bias += BIAS_BYTES;
      stage = following<STAGES>(stage, parity);
    }
  }
}

// ---- the warpgroups that weigh ----

// Two rows of 64 queries. A thread holds two queries, 8 apart (0 and 1 below), of each; of a tile of
// keys pairs of neighbours, 2 i for query 0 and 2 i + 1 for query 1.
struct Weigher {
  u32 my_bias, my_keys;      // on chip, in the first stage; the latter in units of 16 bytes
  u32 my_queries;            // in these units
  u32 my_turn, next_turn, turn_parity;
  u32 scores[16], weights[16];
  u32 q[2][QUERIES_IN_REGISTERS ? 4 * STEPS : 1];  // fp16, scaled
  u32 shift[2][2];           // twice the same whole number, in fp16
  float out[2][WIDTH / 2], sum[2][2];

  // Queries of a row, scaled.
  ON_CHIP void read_queries(unsigned char* chip, int r, float scale) {
    const int thread = threadIdx.x % 128, lane = thread % 32;
    unsigned char* queries = chip + my_queries * 16 - address_of(chip) + r * TILE_BYTES;
    if constexpr (QUERIES_IN_REGISTERS) {
      UNROLL for (int i = 0; i < 8; i++) {
        const int query = thread / 32 * 16 + lane / 4 + (i & 1) * 8;
        const u32 chunk = (i / 2) ^ ((query >> 1) & 3);  // of 16 bytes, swizzled
        const u32 x = *reinterpret_cast<const u32*>(queries + query * 64 + chunk * 16 + lane % 4 * 4);
        q[r][i] = pair(low(x) * scale, high(x) * scale);
      }
    } else {
      UNROLL for (u32 at = thread * 4; at < TILE_BYTES; at += 128 * 4) {
        u32* x = reinterpret_cast<u32*>(queries + at);
        *x = pair(low(*x) * scale, high(*x) * scale);
      }
    }
  }

  // scores = bias - shift + q k
  ON_CHIP void score(int stage, int r) {
    UNROLL for (int i = 0; i < 4; i++) {
      u32 b[4];
      asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];" : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
                   : "r"(my_bias + stage * STAGE_BYTES + i * 2048));
      UNROLL for (int j = 0; j < 4; j++) scores[4 * i + j] = fma2(b[j], LOG2E, shift[r][j & 1]);
    }
    const u32 keys = my_keys + (stage * STAGE_BYTES + r * TILE_BYTES) / 16;
    pin(scores);
    matrix_begin();
    UNROLL for (int i = 0; i < STEPS; i++) {
      if constexpr (QUERIES_IN_REGISTERS) add_products(scores, q[r] + 4 * i, operand(keys + step_of(i)));
      else add_products(scores, operand(my_queries + r * TILE_BYTES / 16 + step_of(i)), operand(keys + step_of(i)));
    }
    matrix_commit();
  }

  ON_CHIP void add_values(int stage, int r) {
    const u32 values = my_keys + (stage * STAGE_BYTES + VALUES + r * TILE_BYTES) / 16;
    pin(out[r]);
    matrix_begin();
    UNROLL for (int i = 0; i < 4; i++) add_products(out[r], weights + 4 * i, operand(values + i * CHANNELS * 2));
    matrix_commit();
  }

  // Until this warp may make exponentials. To be called before `wait`: the compiler would move
  // exponentials before a barrier that comes after it.
  ON_CHIP void await_turn() {
    if constexpr (IN_TURN) {
      barrier_wait(my_turn, turn_parity);
      turn_parity ^= 1;
    }
  }
  // The next warp may as soon as there is this weight: that it is not -0 is always true, but makes
  // the arrival wait for it.
  ON_CHIP void end_turn(u32 weight) {
    if (IN_TURN && threadIdx.x % 32 == 0)
      asm volatile("{\n.reg .pred made;\nsetp.ne.u32 made, %1, 0x80008000;\n"
                   "@made mbarrier.arrive.shared.b64 _, [%0];\n}" ::"r"(next_turn), "r"(weight) : "memory");
  }

  ON_CHIP void wait(int r) {
    matrix_wait();
    pin(scores);
    pin(out[r]);
  }

  ON_CHIP float largest(int query) {
    u32 x = scores[query];
    UNROLL for (int i = 1; i < 8; i++) x = max2(x, scores[2 * i + query]);
    x = max2(x, __shfl_xor_sync(~0u, x, 1));
    x = max2(x, __shfl_xor_sync(~0u, x, 2));
    return fmaxf(low(x), high(x));
  }

  ON_CHIP void move(int r, int query, float by) {
    const u32 twice = pair(by, by);
    shift[r][query] = add2(shift[r][query], twice);
    UNROLL for (int i = 0; i < 8; i++) scores[2 * i + query] = add2(scores[2 * i + query], twice);
  }

  // With a row's first tile: its largest score comes to -ROOM, unless that of others must be far above.
  ON_CHIP void begin(int r) {
    UNROLL for (int query = 0; query < 2; query++) {
      const float top = largest(query);
      move(r, query, top > FAR ? -ceilf(top) - ROOM : 0.0f);
    }
  }

  // Later: scores far above that move the shift, and what was added up before fades.
  ON_CHIP void lower(int r) {
    UNROLL for (int query = 0; query < 2; query++) {
      const float by = fminf(-ceilf(largest(query)) - ROOM, 0.0f);
      move(r, query, by);
      const float fade = exp2_of(by);
      sum[r][query] *= fade;
      UNROLL for (int i = 0; i < WIDTH / 8; i++) {
        out[r][4 * i + 2 * query] *= fade;
        out[r][4 * i + 2 * query + 1] *= fade;
      }
    }
  }

  ON_CHIP void exponentials() {
    UNROLL for (int i = 0; i < 16; i++) weights[i] = i < CUBICS ? cubic_exp2_2(scores[i]) : exp2_2(scores[i]);
  }

  ON_CHIP float sum_of_weights(int query) {
    const u32* w = weights + query;
    const u32 a = add2(add2(w[0], w[2]), add2(w[4], w[6]));
    const u32 b = add2(add2(w[8], w[10]), add2(w[12], w[14]));
    const u32 both = add2(a, b);
    return low(both) + high(both);
  }

  ON_CHIP void weigh(int r) {
    exponentials();
    end_turn(weights[9]);  // so that the next warp begins while this one ends
    float first = sum_of_weights(0), second = sum_of_weights(1);
    if (__any_sync(~0u, !(fmaxf(first, second) < LIMIT))) {
      lower(r);
      exponentials();
      first = sum_of_weights(0);
      second = sum_of_weights(1);
    }
    sum[r][0] += first;
    sum[r][1] += second;
  }
};

ON_CHIP void store(const Weigher& w, int r, const u32 (&start)[2], int head, int tile, int row, const Arguments& a) {
  const int lane = threadIdx.x % 32;
  const int token = tile * TILE + threadIdx.x % 128 / 32 * 16 + lane / 4;
  const bool real = row < a.num_rows && tile < a.query_tiles;
  char* out = a.out + 2 * (row * a.out_row + (long long)token * a.out_token + head * a.out_head + lane % 4 * 2);
  bool exact = true;
  UNROLL for (int query = 0; query < 2; query++) {
    float sum = w.sum[r][query];
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    const float shift = low(w.shift[r][query]);
    exact &= fabsf(shift - low(start[query])) < EXACT && sum > SMALLEST && sum < 1e30f;
    if (real && token + 8 * query < a.num_queries) {
      if (a.lse && lane % 4 == 0)
        a.lse[((long long)row * a.num_heads + head) * a.num_queries + token + 8 * query] = __log2f(sum) - shift;
      const float scale = inverse(sum);
      UNROLL for (int i = 0; i < WIDTH / 8; i++)
        *reinterpret_cast<u32*>(out + 16 * i) = pair_bf16(w.out[r][4 * i + 2 * query] * scale, w.out[r][4 * i + 2 * query + 1] * scale);
    }
    out += 16 * a.out_token;
  }
  const bool redo = any_of_warpgroup(!exact, 1 + threadIdx.x / 128);
  if (real && threadIdx.x % 128 == 0) a.redo[((long long)row * a.num_heads + head) * a.query_tiles + tile] = redo;
}

ON_CHIP void weigh(const Arguments& a, unsigned char* chip, int warpgroup) {
  const u32 base = __shfl_sync(~0u, address_of(chip), 0);
  const u32 full = base + BARRIERS, empty = full + 8 * STAGES, queries_full = empty + 8 * STAGES;
  const int my_tile = warpgroup % QUERY_TILES, my_rows = warpgroup / QUERY_TILES * 2;
  const int thread = threadIdx.x % 128;
  const int my_query = thread / 32 * 16 + thread % 32 / 4;
  Weigher w;
  w.my_bias = base + BIAS + my_tile * BIAS_BYTES + thread * 16;
  w.my_keys = (base + my_rows * TILE_BYTES) / 16;
  w.my_queries = (base + QUERIES + (my_tile * ROWS + my_rows) * TILE_BYTES) / 16;
  const u32 turns = base + TURNS + thread / 32 * 8;  // of the warps of one scheduler
  w.my_turn = turns + warpgroup * 32;
  w.next_turn = turns + (warpgroup ^ 2) * 32;
  w.turn_parity = warpgroup < 2;  // 1 passes a barrier where none has arrived: the first turn
  int stage = 0;
  u32 parity = 0;
  for (int count = 0;; count++) {
    barrier_wait(queries_full, count & 1);
    const volatile int* work = reinterpret_cast<volatile int*>(chip + WORK);
    const int head = work[0], tile = work[1] + my_tile, row = work[2] + my_rows;
    if (head < 0) return;
    u32 start[2];
    UNROLL for (int query = 0; query < 2; query++) {
      const float top = reinterpret_cast<const float*>(chip + MAXIMA)[my_tile * TILE + my_query + 8 * query];
      start[query] = pair(-ceilf(top * low(LOG2E)), -ceilf(top * low(LOG2E)));
    }
    UNROLL for (int r = 0; r < 2; r++) {
      w.read_queries(chip, r, a.scale);
      UNROLL for (int i = 0; i < WIDTH / 2; i++) w.out[r][i] = 0.0f;
      UNROLL for (int query = 0; query < 2; query++) {
        w.sum[r][query] = 0.0f;
        w.shift[r][query] = start[query];
      }
    }
    if constexpr (!QUERIES_IN_REGISTERS) asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    warpgroup_sync(1 + warpgroup);
    if (QUERIES_IN_REGISTERS && thread == 0) barrier_arrive(queries_full + 8);

    barrier_wait(full + 8 * stage, parity);
    w.score(stage, 0);
    w.await_turn();
    w.wait(0);
    w.begin(0);
    w.weigh(0);
    const int key_tiles = a.key_tiles;
    if (FEW_ROWS && row + 1 == a.num_rows) {
      for (int i = 1; i < key_tiles; i++) {
        const int next = following<STAGES>(stage, parity);
        barrier_wait(full + 8 * next, parity);
        w.score(next, 0);
        w.add_values(stage, 0);
        w.wait(0);
        if (thread == 0) barrier_arrive(empty + 8 * stage);
        w.weigh(0);
        stage = next;
      }
      w.add_values(stage, 0);
      w.wait(0);
    } else {
      w.score(stage, 1);
      w.add_values(stage, 0);
      w.await_turn();
      w.wait(0);
      w.begin(1);
      w.weigh(1);
      for (int i = 1; i < key_tiles; i++) {
        const int next = following<STAGES>(stage, parity);
        barrier_wait(full + 8 * next, parity);
        w.score(next, 0);
        w.add_values(stage, 1);
        w.await_turn();
        w.wait(1);
        if (thread == 0) barrier_arrive(empty + 8 * stage);
        w.weigh(0);
        w.score(next, 1);
        w.add_values(next, 0);
        w.await_turn();
        w.wait(0);
        w.weigh(1);
        stage = next;
      }
      w.add_values(stage, 1);
      w.wait(1);
    }
    if (!QUERIES_IN_REGISTERS && thread == 0) barrier_arrive(queries_full + 8);
    if (thread == 0) barrier_arrive(empty + 8 * stage);
    stage = following<STAGES>(stage, parity);
    UNROLL for (int r = 0; r < 2; r++) store(w, r, start, head, tile, row + r, a);
  }
}

extern "C" __global__ void __launch_bounds__((WARPGROUPS + 1) * 128, 1)
attend(const __grid_constant__ TensorMap q, const __grid_constant__ TensorMap k,
       const __grid_constant__ TensorMap v, const __grid_constant__ Arguments a) {
  extern __shared__ __align__(1024) unsigned char chip[];
  const int warpgroup = __shfl_sync(~0u, threadIdx.x / 128, 0);
  if (threadIdx.x == 0) {
    const u32 full = address_of(chip) + BARRIERS;
    for (int i = 0; i < STAGES; i++) {
      barrier_init(full + 8 * i, 1);
      barrier_init(full + 8 * (STAGES + i), WARPGROUPS);
    }
    for (int i = 0; i < 4 * WARPGROUPS; i++) barrier_init(address_of(chip) + TURNS + 8 * i, 1);
    barrier_init(full + 16 * STAGES, 1);
    barrier_init(full + 16 * STAGES + 8, WARPGROUPS);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  // Of the registers of five warpgroups, 96 a thread, most go to the four that weigh.
  if (warpgroup == WARPGROUPS) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 32;");
    if (threadIdx.x == WARPGROUPS * 128) copy(q, k, v, a, chip);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 112;");
    weigh(a, chip, warpgroup);
  }
}
