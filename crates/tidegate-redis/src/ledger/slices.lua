-- The sliding window: tidegate_core::ledger, room `sliding`. `book.slices` is slice, granted, slice, granted, ... by age.

local slice, slices = number[1], number[2]

local function sum()
  local all = 0
  for i = 2, #book.slices, 2 do all = all + book.slices[i] end
  return all
end

local function expiry(of) return (of + slices + 1) * slice end

local function drop_oldest()
  table.remove(book.slices, 1)
  table.remove(book.slices, 1)
end

-- Adds to a slice that is no older than the newest.
local function add(of, units)
  local last = #book.slices
  if last > 0 and book.slices[last - 1] == of then
    book.slices[last] = book.slices[last] + units
  else
    book.slices[last + 1], book.slices[last + 2] = of, units
  end
end

function count.roll(now)
  local current = quotient(now, slice)
  while #book.slices > 0 and book.slices[1] + slices < current do drop_oldest() end
  book.of = math.max(book.of, current)
end

function count.merge(seen_of, seen_level, now)
  local current = quotient(now, slice)
  if seen_of + slices < current or seen_level == 0 then return end
  local of = math.min(seen_of, current + 1)
  local all, newest = sum(), book.slices[#book.slices - 1] or 0
  if of >= newest then
    book.slices = { of, math.max(seen_level, all) }
  elseif all < seen_level then
    add(newest, seen_level - all)
  end
  book.of = math.max(book.of, of)
end

function count.give_back(units, of)
  for i = 1, #book.slices, 2 do
    if book.slices[i] == of then
      book.slices[i + 1] = less(book.slices[i + 1], units)
      if book.slices[i + 1] == 0 then
        table.remove(book.slices, i)
        table.remove(book.slices, i)
      end
      return
    end
  end
end

function count.available() return less(rule.limit, sum()) end

function count.take(units)
  if units > 0 then add(book.of, units) end
end

function count.credit(now) return book.of, slice - now % slice end

function count.retry_in(units, now)
  local all, at = sum(), now
  for i = 1, #book.slices, 2 do
    if all + units <= rule.limit then break end
    all = all - book.slices[i + 1]
    at = expiry(book.slices[i])
  end
  return less(at, now)
end

function count.reset_in(now)
  if #book.slices == 0 then return 0 end
  return less(expiry(book.slices[#book.slices - 1]), now)
end

function count.mark() return book.of, sum() end

function count.step_back(at, now)
  local by = less(quotient(at, slice), quotient(now, slice) + 1)
  for i = 1, #book.slices, 2 do book.slices[i] = less(book.slices[i], by) end
  book.of = less(book.of, by)
end

function count.relieve(units)
  while #book.slices > 0 do
    if book.slices[2] > units then
      book.slices[2] = book.slices[2] - units
      return
    end
    units = units - book.slices[2]
    drop_oldest()
  end
end

function count.used() return sum() end
