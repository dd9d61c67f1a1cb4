-- One session: its record, and the lease of who refreshes it. Equal to tidegate's MemorySessions.
--
-- KEYS[1]: the session. ARGV[1]: the verb, ARGV[2]: the session's id; the last two: the command that publishes hints, and
-- their channel. Times are in microseconds.

local VERSION, WRITTEN, ENDS, RECORD, FENCE, HOLDER, UNTIL, SENT, ORPHANED, FIRST = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10

local time = redis.call('TIME')
local clock = time[1] * 1000000 + time[2]

-- A hint that cannot be sent must not cost the answer.
local function publish(text) redis.pcall(ARGV[#ARGV - 1], ARGV[#ARGV], text) end

local session
do
  local text = redis.call('GET', KEYS[1])
  if text and text ~= '' then session = cmsgpack.unpack(text) end
  if session and session[ENDS] <= clock then session = nil end
end

local function save()
  redis.call('SET', KEYS[1], cmsgpack.pack(session), 'PX', math.max(1, math.ceil((session[ENDS] - clock) / 1000)))
end

local function age(at) return math.max(0, clock - at) end

local verb = ARGV[1]

if verb == 'create' then
  local record, keep = ARGV[3], tonumber(ARGV[4])
  if session then return { 0 } end
  -- Leases count from the clock on, so that those of an earlier session of this name have lower numbers.
  session = { 1, clock, clock + keep, record, clock, '', 0, 0, 0, clock }
  save()
  publish('written ' .. ARGV[2] .. ' 1')
  return { 1 }
end

if verb == 'remove' then
  -- An empty text is no session; it is gone in a moment. To delete would be one more right to give.
  redis.call('SET', KEYS[1], '', 'PX', 1)
  publish('removed ' .. ARGV[2])
  if not session then return {} end
  return { session[VERSION], age(session[WRITTEN]), session[RECORD] }
end

if not session then return {} end

if verb == 'read' then
  local keep = tonumber(ARGV[3])
  -- Written only when it moves the end by much: most reads are of sessions that were read a moment ago.
  if keep > 0 and math.abs(session[ENDS] - (clock + keep)) > keep / 16 then
    session[ENDS] = clock + keep
    save()
  end
  return { session[VERSION], age(session[WRITTEN]), session[RECORD] }
end

if verb == 'lease' then
  local holder, life = ARGV[3], tonumber(ARGV[4])
  if session[HOLDER] == holder then
    session[UNTIL] = math.max(session[UNTIL], clock + life)
  elseif session[HOLDER] ~= '' and clock < session[UNTIL] then
    return { 0, session[UNTIL] - clock }
  else
    -- What a dead holder sent stays known until a record says what became of it.
    local sent = session[HOLDER] ~= '' and session[SENT] or 0
    session[FENCE] = session[FENCE] + 1
    session[HOLDER], session[UNTIL], session[SENT], session[ORPHANED] = holder, clock + life, sent, sent
  end
  save()
  local orphan = session[ORPHANED] > 0 and age(session[ORPHANED]) or -1
  return { 1, session[FENCE], session[VERSION], age(session[WRITTEN]), session[RECORD], orphan }
end

local function held(fence) return session[HOLDER] ~= '' and session[FENCE] == tonumber(fence) end

local function release() session[HOLDER], session[UNTIL], session[SENT], session[ORPHANED] = '', 0, 0, 0 end

if verb == 'renew' then
  local fence, life, phase = ARGV[3], tonumber(ARGV[4]), ARGV[5]
  if not held(fence) then return { 0 } end
  session[UNTIL] = clock + life
  if phase == 'sent' and session[SENT] == 0 then session[SENT] = clock end
  save()
  if phase == 'sent' then publish('sent ' .. ARGV[2]) end
  return { 1 }
end

if verb == 'release' then
  if held(ARGV[3]) then
    local sent = session[SENT] > 0
    release()
    save()
    if sent then publish('written ' .. ARGV[2] .. ' ' .. string.format('%.0f', session[VERSION])) end
  end
  return { 1 }
end

-- write
local fence, over, record, keep, under = ARGV[3], tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6]), ARGV[7]
local holds = held(fence)
-- What was written before leases counted so has no first one.
if tonumber(fence) > 0 and tonumber(fence) < (session[FIRST] or 0) then return {} end
if under == 'holder' and not holds then return { 2, 0 } end
if session[VERSION] ~= over then return { 0, 0 } end
session[VERSION], session[WRITTEN], session[ENDS], session[RECORD] = over + 1, clock, clock + keep, record
if under ~= 'anybody' and holds then release() end
save()
publish('written ' .. ARGV[2] .. ' ' .. string.format('%.0f', over + 1))
return { 1, over + 1 }
