async def maybe_wait_for_debugger(child_in_debug=False):
    pass
