"""amltk_nb."""
