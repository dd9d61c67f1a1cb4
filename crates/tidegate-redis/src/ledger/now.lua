-- Which ledger it is, for whoever does not ask of an account.
return { (epoch_at(0)) }
