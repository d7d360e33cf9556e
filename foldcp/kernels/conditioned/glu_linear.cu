// The hidden channels of a transition on Hopper: x silu(y) w of the three thirds x, y, w of
// a up_proj^T, gated where they are summed.
//
// A block takes tile by tile: 256 rows of a and 64 hidden channels. Two warpgroups multiply 128 rows
// each by 3 x 64 rows of up_proj, and one thread copies, also the next tile while one is gated.

constexpr int WARPGROUPS = 2;                  // that multiply
constexpr int ROWS = WARPGROUPS * 128;         // of a tile
constexpr int HIDDEN = 64;                     // of a tile
constexpr int STEP = 64;                       // channels on chip at a time, 128 bytes of a row
constexpr u32 ROW_BYTES = STEP * 2;
constexpr u32 WEIGHTS = ROWS * ROW_BYTES;      // where they begin in a stage, after a
constexpr u32 THIRD_BYTES = HIDDEN * ROW_BYTES;
constexpr u32 STAGE_BYTES = WEIGHTS + 3 * THIRD_BYTES;
constexpr u32 BARRIERS = STAGES * STAGE_BYTES; // STAGES x full, STAGES x empty
static_assert(BARRIERS + 16 * STAGES == SHARED_BYTES, "the launch gives as much");
constexpr float LOG2E = 1.4426950408889634f;
constexpr float FAR = 60.0f;                   // exponents of 2 that multiply without overflow

struct Arguments {
  char* out;             // bf16 [num_rows, num_hidden]
  int num_rows, num_hidden, num_channels;
};

// ---- instructions ----

// the channels from `channel` on of the rows from `row` on
ON_CHIP void copy_tile(u32 to, const TensorMap* map, u32 barrier, int channel, int row) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
               "[%0], [%1, {%3, %4}], [%2];"
               ::"r"(to), "l"(map), "r"(barrier), "r"(channel), "r"(row) : "memory");
}

#define FOUR(x, i) "+f"(x[i]), "+f"(x[i + 1]), "+f"(x[i + 2]), "+f"(x[i + 3])
#define ALL_32(x, i) FOUR(x, i), FOUR(x, i + 4), FOUR(x, i + 8), FOUR(x, i + 12), FOUR(x, i + 16), \
  FOUR(x, i + 20), FOUR(x, i + 24), FOUR(x, i + 28)
#define THE_96 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, " \
  "%18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, " \
  "%37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, " \
  "%56, %57, %58, %59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, " \
  "%75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, " \
  "%94, %95}"

// sum [64, 192] += 16 channels of rows times weights
ON_CHIP void add_products(float (&sum)[96], u64 rows, u64 weights) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 " THE_96
               ", %96, %97, 1, 1, 1, 0, 0;"
               : ALL_32(sum, 0), ALL_32(sum, 32), ALL_32(sum, 64) : "l"(rows), "l"(weights));
}

// First row and first hidden channel of a tile; those that run at a time have rows and weights in common.
struct Tile { int row, hidden; };
ON_CHIP Tile tile_of(int index, int row_tiles) {
  return {index % row_tiles * ROWS, index / row_tiles * HIDDEN};
}

// ---- the thread that copies ----

ON_CHIP void copy(const TensorMap& a, const TensorMap& up_proj, const Arguments& args, u32 base, int row_tiles, int tiles) {
  const u32 full = base + BARRIERS, empty = full + 8 * STAGES;
  int stage = 0;
  u32 parity = 1;
  for (int index = blockIdx.x; index < tiles; index += gridDim.x) {
    const Tile tile = tile_of(index, row_tiles);
    for (int channel = 0; channel < args.num_channels; channel += STEP) {
      const u32 to = base + stage * STAGE_BYTES, barrier = full + 8 * stage;
      barrier_wait(empty + 8 * stage, parity);
      barrier_expect(barrier, STAGE_BYTES);
      copy_tile(to, &a, barrier, channel, tile.row);
      UNROLL for (int third = 0; third < 3; third++)
        copy_tile(to + WEIGHTS + third * THIRD_BYTES, &up_proj, barrier, channel, third * args.num_hidden + tile.hidden);
      stage = following<STAGES>(stage, parity);
    }
  }
}

// ---- the warpgroups that multiply ----

// A thread holds rows `lane / 4` and 8 below, and of each 8 channels two neighbours.
ON_CHIP void store(float (&sum)[96], int row, int hidden, const Arguments& a) {
  const int lane = threadIdx.x % 32;
  row += threadIdx.x % 128 / 32 * 16 + lane / 4;
  UNROLL for (int half = 0; half < 2; half++) {
    if (row + 8 * half >= a.num_rows) return;
    char* out = a.out + 2 * ((long long)(row + 8 * half) * a.num_hidden + hidden + lane % 4 * 2);
    UNROLL for (int i = 0; i < HIDDEN / 8; i++) {
      const float* x = sum + 4 * i + 2 * half;
      const float* y = x + HIDDEN / 2;
      const float* w = x + HIDDEN;
      const float first = 1.0f + exp2_of(fminf(-LOG2E * y[0], FAR));
      const float second = 1.0f + exp2_of(fminf(-LOG2E * y[1], FAR));
      const float both = inverse(first * second);  // one reciprocal for two
      *reinterpret_cast<u32*>(out + 16 * i) = pair_bf16(x[0] * y[0] * w[0] * (both * second), x[1] * y[1] * w[1] * (both * first));
    }
  }
}

ON_CHIP void multiply(const Arguments& a, u32 base, int warpgroup, int row_tiles, int tiles) {
  const u32 full = base + BARRIERS, empty = full + 8 * STAGES;
  const u32 my_rows = (base + warpgroup * 128 * ROW_BYTES) / 16, weights = (base + WEIGHTS) / 16;
  const bool first_thread = threadIdx.x % 128 == 0;
  float sum[2][96];
  int stage = 0;
  u32 parity = 0;
  for (int index = blockIdx.x; index < tiles; index += gridDim.x) {
    UNROLL for (int i = 0; i < 96; i++) sum[0][i] = sum[1][i] = 0.0f;
    UNROLL for (int half = 0; half < 2; half++) pin(sum[half]);
    int previous = -1;
    for (int channel = 0; channel < a.num_channels; channel += STEP) {
      const u32 at = stage * STAGE_BYTES / 16;
      barrier_wait(full + 8 * stage, parity);
      matrix_begin();
      UNROLL for (int i = 0; i < STEP / 16; i++)
        UNROLL for (int half = 0; half < 2; half++)
          add_products(sum[half], operand_of_128(my_rows + at + half * 64 * ROW_BYTES / 16 + 2 * i), operand_of_128(weights + at + 2 * i));
      matrix_commit();
      if (previous >= 0) {
        matrix_wait<1>();
        if (first_thread) barrier_arrive(empty + 8 * previous);
      }
      previous = stage;
      stage = following<STAGES>(stage, parity);
    }
    matrix_wait<0>();
    UNROLL for (int half = 0; half < 2; half++) pin(sum[half]);
    if (first_thread) barrier_arrive(empty + 8 * previous);
    const Tile tile = tile_of(index, row_tiles);
    UNROLL for (int half = 0; half < 2; half++) store(sum[half], tile.row + warpgroup * 128 + half * 64, tile.hidden, a);
  }
}

extern "C" __global__ void __launch_bounds__((WARPGROUPS + 1) * 128, 1)
glu_linear(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap up_proj, const __grid_constant__ Arguments args) {
  extern __shared__ __align__(1024) unsigned char chip[];
  const u32 base = address_of(chip);
  const int warpgroup = __shfl_sync(~0u, threadIdx.x / 128, 0);
  if (threadIdx.x == 0) {
    const u32 full = base + BARRIERS;
    for (int i = 0; i < STAGES; i++) {
      barrier_init(full + 8 * i, 1);
      barrier_init(full + 8 * (STAGES + i), WARPGROUPS);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  const int row_tiles = (args.num_rows + ROWS - 1) / ROWS;
  const int tiles = row_tiles * (args.num_hidden / HIDDEN);
  // Of the registers, 168 a thread, most go to the warpgroups that multiply.
  if (warpgroup == WARPGROUPS) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
    if (threadIdx.x == WARPGROUPS * 128) copy(a, up_proj, args, base, row_tiles, tiles);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
    multiply(args, base, warpgroup, row_tiles, tiles);
  }
}
