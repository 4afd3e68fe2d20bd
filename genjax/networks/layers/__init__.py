"""Operations and layers that networks are made of; `ops.py` chooses the form that is fast on the platform."""
