-- One subject's account: tidegate_core::ledger, room `book`. The order of steps is part of what it is.

-- What a node wanted and did not get.
local function unmet_of(seat) return seat[3] or 0 end

-- Enters a question; says whether it is the next of a node that is remembered, the last one again, an older one, or of
-- an unknown node.
local function visit(node, seq, now)
  local generation = quotient(now, rule.memory)
  local seats = book.seats
  if generation ~= book.generation then
    book.before = generation == book.generation + 1 and book.present or 0
    book.present = 0
    book.generation = generation
    book.unmet = 0
    for name, seat in pairs(seats) do
      if seat[2] + 1 < generation or seat[2] > generation then
        seats[name] = nil
      else
        book.unmet = book.unmet + unmet_of(seat)
      end
    end
  end
  local seat = seats[node]
  local outcome = 'unknown'
  if seat then outcome = seq > seat[1] and 'new' or seq == seat[1] and 'repeated' or 'overtaken' end
  if not seat or seat[2] ~= generation then book.present = book.present + 1 end
  if seat then
    book.unmet = book.unmet - unmet_of(seat)
    seats[node] = { math.max(seat[1], seq), generation, 0 }
  else
    local taken = 0
    for _ in pairs(seats) do taken = taken + 1 end
    if taken < MOST_NODES then seats[node] = { seq, generation, 0 } end
  end
  return outcome
end

-- Notes what a node, which visits, wanted and did not get.
local function leave(node, unmet)
  local seat = book.seats[node]
  if seat then
    seat[3] = unmet
    book.unmet = book.unmet + unmet
  end
end

local function nodes() return math.max(book.present, book.before, 1) end

-- How many would want it all together, if each of them wanted as much as one that wants `want`; at most all nodes.
local function sharers(want)
  return math.min(math.max(quotient_up(book.unmet + want, math.max(want, 1)), 1), nodes())
end

-- Brings the account to the clock. Time does not run backwards in it, but for a clock that was set back.
local function turn()
  if clock + rule.life < book.at then
    count.step_back(book.at, clock)
    book.barred = less(book.barred, book.at - clock)
    book.generation, book.present, book.before, book.seats, book.unmet = 0, 0, 0, {}, 0
    book.at = clock
  end
  book.at = math.max(book.at, clock)
  count.roll(book.at)
  return book.at
end

local function pay(now)
  local paid = math.min(book.debt, count.available(now))
  if rule.limit > 0 and paid > 0 then
    count.take(paid, now)
    book.debt = book.debt - paid
  end
end

local function available(pause, now)
  if rule.limit == 0 or pause > 0 or book.barred > now or book.debt > 0 then return 0 end
  return count.available(now)
end

local function retry_in(units, pause, now)
  if units > rule.largest then return FAR end
  units = math.min(units + book.debt, rule.largest)
  return math.min(math.max(count.retry_in(units, now), pause, less(book.barred, now)), FAR)
end

-- For how long the account is kept when nobody asks.
local function keep(now)
  local busy = math.max(count.reset_in(now), less(book.barred, now))
  local windows = math.min(quotient_up(book.debt, math.max(rule.limit, 1)), 1048576)
  return math.min(busy, FAR) + math.min(windows * rule.window, FAR) + 2 * rule.memory
end

local function save(now)
  local fields = {
    book.at, book.of, book.level, book.debt, book.barred, book.generation, book.present, book.before,
    book.slices, book.seats, book.told, book.rate,
    book.unmet,
  }
  local packed = cmsgpack.pack(fields)
  if ARGV[3] == '' then
    redis.call('SET', account, packed, 'PX', quotient_up(keep(now), 1000))
  else
    redis.call('SET', account, packed)
  end
end

local function tell(kind, retry_in) publish(string.format('%s %.0f %s', kind, retry_in, ARGV[own + 1])) end

-- Answers the question of the account that is open, at the end of `answers`.
local function answer(answers)
  local node, seq = ARGV[own + 2], tonumber(ARGV[own + 3])
  local least, need, want = tonumber(ARGV[own + 4]), tonumber(ARGV[own + 5]), tonumber(ARGV[own + 6])
  local back, back_of, debt = tonumber(ARGV[own + 7]), tonumber(ARGV[own + 8]), tonumber(ARGV[own + 9])
  local seen = tonumber(ARGV[own + 10])
  local epoch, begun = epoch_at(seen)
  local pause = less(begun + rule.life, clock)
  local now = turn()
  if seen ~= epoch and seen ~= 0 then count.merge(tonumber(ARGV[own + 11]), tonumber(ARGV[own + 12]), now) end
  local visited = visit(node, seq, now)
  local returned = visited == 'new' and back > 0
  if returned then count.give_back(back, back_of, now) end
  if visited ~= 'repeated' then book.debt = math.min(book.debt + debt, MOST_DEBT) end
  if pause == 0 then pay(now) end
  local there, granted = available(pause, now), 0
  if there >= least then
    local part = math.min(want, quotient(there, rule.divisor * sharers(want)))
    granted = math.min(there, math.max(need, least, part))
  end
  if there < least and pause == 0 and book.barred <= now and least <= rule.largest and rule.prohibit > 0 then
    book.barred = now + rule.prohibit
  end
  leave(node, less(want, granted))
  count.take(granted, now)
  local of, life = count.credit(now)
  local mark_of, mark_level = count.mark()
  local left = available(pause, now)
  local retry = retry_in(math.max(least, 1), pause, now)
  if granted < math.max(least, need) and nodes() > 1 and (now >= book.told or book.told > now + retry) then
    book.told = now + retry
    tell('exhausted', retry)
  elseif returned and left > 0 and now < book.told then
    book.told = 0
    tell('relieved', 0)
  end
  save(now)
  local last = #answers
  answers[last + 1], answers[last + 2], answers[last + 3], answers[last + 4] = granted, of, life, left
  answers[last + 5], answers[last + 6], answers[last + 7] = count.reset_in(now), retry, nodes()
  answers[last + 8], answers[last + 9], answers[last + 10], answers[last + 11] = mark_of, mark_level, epoch, seq
end

-- Answers all questions, one after the other, in a list without seams.
local function grant()
  local answers = {}
  answer(answers)
  for key = 3, #KEYS do
    open(key, own + 12)
    answer(answers)
  end
  return answers
end

local function inspect()
  local now = turn()
  return {
    count.used(now), available(0, now), book.debt, less(book.barred, now), count.reset_in(now), nodes(),
  }
end

-- Puts what an account was before in front of what it is.
local function with_before(before)
  for _, figure in ipairs(inspect()) do before[#before + 1] = figure end
  return before
end

local function relieve()
  local before, units, now = inspect(), tonumber(ARGV[own + 2]), turn()
  local forgiven = math.min(units, book.debt)
  book.debt = book.debt - forgiven
  count.relieve(units - forgiven, now)
  book.barred, book.told = 0, 0
  tell('relieved', 0)
  save(now)
  return with_before(before)
end

local function charge()
  local before, units, now = inspect(), tonumber(ARGV[own + 2]), turn()
  book.debt = math.min(book.debt + math.min(units, MOST_DEBT), MOST_DEBT)
  pay(now)
  tell('recall', 0)
  save(now)
  return with_before(before)
end

local function reset()
  -- To look at an account may take its clock back, and to look must change nothing of what is kept.
  local at, generation, present, earlier = book.at, book.generation, book.present, book.before
  local seats, unmet = book.seats, book.unmet
  local before = inspect()
  book.at, book.generation, book.present, book.before = at, generation, present, earlier
  book.seats, book.unmet = seats, unmet
  book.of, book.level, book.debt, book.barred, book.slices, book.told, book.rate = 0, 0, 0, 0, {}, 0, { 0, 0 }
  tell('relieved', 0)
  save(book.at)
  return with_before(before)
end

local verbs = { grant = grant, inspect = inspect, relieve = relieve, charge = charge, reset = reset }
return verbs[ARGV[1]]()
