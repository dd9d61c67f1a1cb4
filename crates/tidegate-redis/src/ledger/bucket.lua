-- The token bucket: tidegate_core::ledger, room `bucket`. `book.level` is the instant at which it is full again.

local units_in, period, burst, refill = number[1], number[2], number[3], number[4]

local function flow(units) return quotient_up(units * period, units_in) end

local function room(now)
  local spare = less(now + refill, math.max(book.level, now))
  return math.min(quotient(spare * units_in, period), burst)
end

-- The longest that a bucket takes to fill after its rate was lowered.
local LONGEST = 4503599627370496

-- What is out of a bucket is a number of units: at another rate they flow in in another time. Three roundings of numbers
-- below 2^52 are off by less than two.
function count.roll(now)
  local rate = book.rate
  if rate[1] == units_in and rate[2] == period then return end
  if rate[1] > 0 and book.level > now then
    local units = (book.level - now) * rate[1] / rate[2]
    book.level = now + math.min(math.ceil(units * period / units_in) + 2, LONGEST)
  end
  book.rate = { units_in, period }
end

function count.merge(_, seen_level, now)
  book.level = math.max(book.level, math.min(seen_level, now + refill))
end

function count.give_back(units, of, now)
  local taken = quotient(math.min(units, burst) * period, units_in)
  book.level = less(book.level, less(taken, less(now, of)))
end

function count.available(now) return room(now) end

function count.take(units, now) book.level = math.max(book.level, now) + flow(units) end

function count.credit(now) return now, rule.life end

function count.retry_in(units, now)
  return less(math.max(book.level, now) + flow(units), now + refill)
end

function count.reset_in(now) return less(book.level, now) end

function count.mark() return 0, book.level end

function count.step_back(at, now) book.level = less(book.level, at - now) end

function count.relieve(units) book.level = less(book.level, flow(math.min(units, burst))) end

function count.used(now) return less(rule.limit, room(now) + less(rule.limit, burst)) end
