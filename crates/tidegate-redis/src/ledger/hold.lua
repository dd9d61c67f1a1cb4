-- A node has more to tell of the epoch before than fits into the pause: the pause begins anew, for as long as a node needs
-- and HELD_AT_MOST after the epoch began.
local HELD_AT_MOST = 30000000

local id, begun = epoch_at(0)
if clock >= id and clock - id < HELD_AT_MOST and begun - NOTICED_WITHIN < clock then
  redis.call('SET', KEYS[1], cmsgpack.pack({ id, clock, ARGV[2], clock }), 'PX', EPOCH_KEPT)
end
return { id }
