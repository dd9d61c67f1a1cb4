-- What every script begins with: the server's clock, and which ledger it is.
--
-- KEYS[1]: the epoch. ARGV[2]: the server's run id; ARGV[3]: the time, or '' for the server's clock; the last two: the
-- command that publishes hints, and their channel.

local EPOCH_KEPT = 172800000
local EPOCH_TOUCHED = 3600000000
-- Nodes that do not ask notice within this: see NOTICED_WITHIN in watch.rs.
local NOTICED_WITHIN = 1000000

local clock = ARGV[3]
if clock == '' then
  local time = redis.call('TIME')
  clock = time[1] * 1000000 + time[2]
else
  clock = tonumber(clock)
end

-- Tells who listens. A hint that cannot be sent must not cost the answer.
local function publish(text) redis.pcall(ARGV[#ARGV - 1], ARGV[#ARGV], text) end

-- The epoch to go on with, written down when it changes. A marker that is gone, or that another server wrote, means
-- that grants may have been lost. Its beginning is put off by the time in which all nodes notice.
local known_id, known_begun
local function epoch_at(seen)
  local id, begun, changed, lost = known_id, known_begun, false, false
  if not id then
    local kept = redis.call('GET', KEYS[1])
    if not kept then
      id, begun, lost = math.max(clock, 1), math.max(clock, 1), true
    else
      local fields = cmsgpack.unpack(kept)
      id, begun = fields[1], fields[2]
      local touched = fields[4]
      if fields[3] ~= ARGV[2] then
        id, begun, lost = math.max(clock, id + 1), clock, true
      end
      if clock < touched or clock - touched > EPOCH_TOUCHED then changed = true end
    end
  end
  if seen > id then
    id, begun, lost = math.max(clock, seen + 1), clock, true
  elseif begun > clock then
    begun, changed = clock, true
  end
  if lost then publish('lost') end
  if lost or changed then
    redis.call('SET', KEYS[1], cmsgpack.pack({ id, begun, ARGV[2], clock }), 'PX', EPOCH_KEPT)
  end
  known_id, known_begun = id, begun
  return id, begun + NOTICED_WITHIN
end

