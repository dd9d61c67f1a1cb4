-- A question that nobody waits for any more asks for nothing: what it was granted would lie idle until its window is
-- over. A server that hung answers such questions when it goes on. What they give back and owe is booked as ever.
--
-- ARGV[#ARGV - 2]: until when it is waited for, by the server's clock; or ''.
local due = ARGV[#ARGV - 2]
if ARGV[1] == 'grant' and due ~= '' and clock > tonumber(due) then
  for own = 14, 14 + 12 * (#KEYS - 2), 12 do
    ARGV[own + 4], ARGV[own + 5], ARGV[own + 6] = '0', '0', '0'
  end
end

