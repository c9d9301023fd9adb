"""How the engine's numbers lie in memory: what its drivers write and its kernels read.

A matrix stands in blocks of 16 rows, a row a lane. Columns come in groups of 32, padded with zeros. A block
of a matrix of G groups is, by kind:

- Q4: G records of 320 bytes: 4 vectors of nibbles, then 16 scales d and 16 minima m, all float16. Byte
  4 r + j of vector c has column 4 c + j of row r in its low nibble and column 16 + 4 c + j in its high one,
  as a block of a GGUF file has. A weight is d q + m.
- Q8: G x 8 vectors of bytes q + 128 (byte 4 r + j of vector c: column 4 c + j of row r), then G x 16 scales.
- BF16, F32: G x 32 vectors of 16 numbers, one a column.

Activations stand in tiles of 8 tokens. A tile of integers has G records of 352 bytes: 8 x 32 int8, then for
each of the 8 the scale, scale times sum, and -128 times sum (int32) of its 32 numbers. One of floats has
G records of 32 columns by 8 tokens. A prompt's stand in tiles of 16 tokens: G records of 16 x 32 bfloat16.

A cache has pages of 64 positions. In a page each layer and key/value head has a chunk, all int8: keys as 4
blocks of [head_dim, 16 positions], then values [64 positions, head_dim]; then the scales of both, float32,
one for each 16 dimensions of a position: of keys [head_dim / 16, 64], of values [64, head_dim / 16]. head_dim
is padded to 32.
"""

from __future__ import annotations

ROWS = 16
GROUP = 32
TILE = 8
ACROSS = 4 * TILE  # bytes from a number of one row of a tile of floats to the next column's
PAGE = 64
# Where the parts of a chunk begin, and its size, in bytes for each dimension of a head.
VALUES, KEY_SCALES, VALUE_SCALES, CHUNK_BYTES = 64, 128, 144, 160
MOST_TOKENS = 64  # of a step
CHUNK = 512  # tokens of a prompt that are read at once
PROMPT_BLOCK = 256  # positions that they attend to at once
TILE_TOKENS, TILE_BYTES = 16, 1024  # of tiles of bfloat16, which are 32 columns wide
MOST_SPANS = 8  # parts that a token's context is attended to in
LINE = 64
ROWS_OUT = 4 * ROWS * CHUNK  # bytes of what a block of rows gives for all tokens

# Kinds of matrices, and the bytes of a group of a block of 16 rows.
Q4, Q8, BF16, F32 = range(4)
GROUP_BYTES = (320, 544, 1024, 2048)

# Activations.
INTEGER_RECORD, SCALE_AT, SUM_AT, SHIFT_AT = 352, 256, 288, 320
FLOAT_RECORD = 1024

# Columns of the table of matrices; its rows: four for each layer, then the head and the embedding.
ADDRESS, KIND, N_BLOCKS, N_GROUPS, BLOCK_BYTES, BIAS = range(6)
QKV, OUTPUT, GATE_UP, DOWN, N_OF_LAYER = range(5)

# Sizes of the model, and addresses of what threads share.
(
    N_LAYERS,
    N_HEADS,
    N_KV_HEADS,
    HEAD_DIM,
    D_MODEL,
    TRUE_D_MODEL,
    D_FF,
    VOCAB_ROWS,
    NORMS_AT,
    RESIDUAL_AT,
    ACTIVATIONS_AT,
    ACTIVATIONS_BYTES,
    HIDDEN_AT,
    QUERIES_AT,
    PARTIALS_AT,
    ATTENDED_AT,
    SCRATCH_AT,
    SCRATCH_BYTES,
    ROPE_AT,
    LOGITS_AT,
    TAPS_AT,
    PANEL_AT,
    PANEL_BYTES,
    PROMPT_AT,
    PROMPT_BYTES,
    N_SIZES,
) = range(26)

# What one step is asked to do.
TURN, STOPPING, N_TOKENS, N_TILES, N_WANTED, GIVEN, BY_TILES, N_ORDERS = range(8)

# Columns of the table of a step's tokens.
TOKEN, POSITION, SLOT, SEQUENCE, START, IS_LINEAR, TOKEN_TILE, TOKEN_ROW, N_OF_TOKEN = range(9)

# Columns of the table of tiles of query rows, 8 of a step and 16 of a prompt; then how many positions each of
# its rows sees.
TILE_TOKEN, TILE_ROWS, TILE_LIMIT, TILE_SPAN, TILE_LIMITS, N_OF_TILE = 0, 1, 2, 3, 4, 4 + TILE_TOKENS
