-- Permits of one limit among the instances of a fleet: tidegate_core::lease, room `books`.
--
-- KEYS: the epoch; the limit's leases. ARGV: the verb; the server's run id; the time, or ''; the limit; the node; the
-- request's number; what it keeps, what it wants, and the life of a lease in microseconds; the last two as for all.

local MOST_NODES = 10000

local limit, node, seq = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local kept, wanted, life = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local epoch, begun = epoch_at(0)

-- epoch; until when it learns what others hold; of each node: number, permits, counted, wanted, until, remembered; the
-- life of the leases
local books
do
  local text = redis.call('GET', KEYS[2])
  if text then books = cmsgpack.unpack(text) end
  if not books or books[1] ~= epoch then books = { epoch, begun + life, {}, life } end
end
local nodes = books[3]

local function finish(held) held[2], held[3], held[4] = 0, 0, 0 end

local function save()
  local last = clock
  for _, held in pairs(nodes) do last = math.max(last, held[6]) end
  if ARGV[3] == '' then
    redis.call('SET', KEYS[2], cmsgpack.pack(books), 'PX', math.ceil((last - clock) / 1000) + 1)
  else
    redis.call('SET', KEYS[2], cmsgpack.pack(books))
  end
end

if ARGV[1] == 'give_back' then
  local held = nodes[node]
  if held and held[1] < seq then
    finish(held)
    held[1] = seq
    save()
  end
  return { 1, 0, seq }
end

local others, sum, demands = 0, 0, { wanted }
for name, held in pairs(nodes) do
  if held[6] <= clock then
    nodes[name] = nil
  else
    if held[5] <= clock then finish(held) end
    if name ~= node then
      others, sum = others + 1, sum + held[3]
      demands[#demands + 1] = held[4]
    end
  end
end

-- A ledger that is lost waits for one life of a lease, so that all have the same one.
if books[4] ~= life then
  if others > 0 then return { 2, books[4], seq } end
  books[4] = life
end

-- The most that it gets: max-min fairness over all demands.
local function share()
  table.sort(demands)
  local left = limit
  for at, demand in ipairs(demands) do
    local among = #demands - at + 1
    local level = math.floor(left / among)
    if level * among < left then level = level + 1 end
    if demand > level then return level end
    left = left - demand
  end
  return limit
end

local held = nodes[node]
if held and seq == held[1] then return { 1, held[2], seq } end
if held and seq < held[1] then return { 0, 0, seq } end
if not held and others >= MOST_NODES then return { 1, 0, seq } end

local permits, counted
if clock < books[2] then
  permits, counted = math.min(wanted, kept), kept
else
  permits = math.min(wanted, share(), math.max(limit - sum, 0))
  counted = math.max(permits, math.min(kept, held and held[3] or 0))
end
nodes[node] = { seq, permits, counted, wanted, clock + life, clock + 2 * life }
save()
return { 1, permits, seq }
