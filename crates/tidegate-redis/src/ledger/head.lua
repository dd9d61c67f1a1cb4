-- What every law stands on: the rule, the account as it was left, and arithmetic on whole numbers below 2^53.
--
-- KEYS: the epoch of the bucket's ledger; the accounts of subjects.
-- ARGV: the verb; the server's run id; the time, or '' for the server's clock; limit, largest, window, life, prohibit,
-- divisor; four numbers of the law; memory; then of each subject: its name in hints, and the verb's own.

local FAR = 366 * 86400000000
local MOST_DEBT = 1125899906842624
local MOST_NODES = 1024

local function quotient(a, b) return math.floor(a / b) end

local function quotient_up(a, b)
  local whole = math.floor(a / b)
  if whole * b < a then return whole + 1 end
  return whole
end

local function less(a, b)
  if a > b then return a - b end
  return 0
end

local rule = {
  limit = tonumber(ARGV[4]), largest = tonumber(ARGV[5]), window = tonumber(ARGV[6]), life = tonumber(ARGV[7]),
  prohibit = tonumber(ARGV[8]), divisor = tonumber(ARGV[9]), memory = tonumber(ARGV[14]),
}
local number = { tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13]) }

-- at, of, level, debt, barred, generation, present, before, slices, seats; until when it was told that nothing is left; the
-- rate that the level of a bucket stands on; what nodes wanted and did not get
local book

-- The account that is open, among KEYS; and after which of ARGV its own begin.
local account, own

-- Opens an account.
local function open(key, after)
  account, own = KEYS[key], after
  local kept = redis.call('GET', account)
  if kept then
    local fields = cmsgpack.unpack(kept)
    book = {
      at = fields[1], of = fields[2], level = fields[3], debt = fields[4], barred = fields[5],
      generation = fields[6], present = fields[7], before = fields[8], slices = fields[9], seats = fields[10],
      told = fields[11], rate = fields[12] or { 0, 0 }, unmet = fields[13] or 0,
    }
  else
    book = {
      at = 0, of = 0, level = 0, debt = 0, barred = 0, generation = 0, present = 0, before = 0,
      slices = {}, seats = {}, told = 0, rate = { 0, 0 }, unmet = 0,
    }
  end
end

open(2, 14)

local count = {}
