-- Fixed windows: tidegate_core::ledger, room `fixed`. A window's count starts anew with each window.

local ALIGNED, FIRST_CALL = 0, 1
local DAY = 86400000000
local kind, period = number[1], number[2]

local function month_of(at)
  local days = quotient(at, DAY)
  local day_of_era = (days + 719468) % 146097
  local year_of_era = quotient(day_of_era - quotient(day_of_era, 1460) + quotient(day_of_era, 36524)
    - quotient(day_of_era, 146096), 365)
  local day_of_year = day_of_era - (365 * year_of_era + quotient(year_of_era, 4) - quotient(year_of_era, 100))
  local month = quotient(5 * day_of_year + 2, 153)
  local days_before = day_of_year - quotient(153 * month + 2, 5)
  return (days - days_before) * DAY
end

local function start(at)
  if kind == ALIGNED then return at - at % period end
  if kind == FIRST_CALL then return at end
  return month_of(at)
end

local function ending(of)
  if kind == ALIGNED or kind == FIRST_CALL then return of + period end
  return month_of(of + 32 * DAY)
end

local function closed() return kind == FIRST_CALL and book.of == 0 end

function count.roll(now)
  if kind == FIRST_CALL then
    if book.of > 0 and ending(book.of) <= now then book.of, book.level = 0, 0 end
  elseif start(now) > book.of then
    book.of, book.level = start(now), 0
  end
end

function count.merge(seen_of, seen_level, now)
  if kind == FIRST_CALL then
    if seen_of == 0 or ending(seen_of) <= now then return end
    book.of = math.max(book.of, math.min(seen_of, now))
    book.level = math.max(book.level, seen_level)
    return
  end
  local of = math.min(seen_of, start(now + rule.life))
  if of > book.of then
    book.of, book.level = of, seen_level
  elseif of == book.of then
    book.level = math.max(book.level, seen_level)
  end
end

function count.give_back(units, of)
  if of == book.of then book.level = less(book.level, units) end
end

function count.available(now)
  if book.of > now then return 0 end
  return less(rule.limit, book.level)
end

function count.take(units, now)
  if units > 0 and closed() then book.of = now end
  book.level = book.level + units
end

function count.credit(now)
  if closed() then return 0, 0 end
  return book.of, math.min(rule.life, less(ending(book.of), now))
end

function count.reset_in(now)
  if closed() then return 0 end
  return less(ending(book.of), now)
end

function count.retry_in(units, now)
  if book.of > now then return book.of - now end
  if less(rule.limit, book.level) >= units then return 0 end
  return count.reset_in(now)
end

function count.mark() return book.of, book.level end

function count.step_back(at, now)
  if kind == FIRST_CALL then
    book.of = less(book.of, at - now)
  else
    book.of = math.min(book.of, start(now + rule.life))
  end
end

function count.relieve(units) book.level = less(book.level, units) end

function count.used() return book.level end
