"""How running calls talk with their scheduler: one interface (`base`) and its members."""
