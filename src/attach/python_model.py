# The networks of a program, to be run again: runs in the plugin's own namespace of the program's interpreter
# (src/attach/python_model.cpp), after python_modules.py, which keeps `_networks`.
#
# The inputs of a call are copied before it, since a forward may write into them. Hooks of the program's own are not called
# when the network is run again, and what it prints then goes nowhere.
import collections, collections.abc, copy, sys, threading, warnings, weakref
_calls, _handles, _chosen = [], [], None
_error = ""
_kMost = 8

class _Call:
    pass

def _covering(root):
    """Modules that have all of the parameters of the network, from the root on down."""
    every = {id(p) for p in root.parameters()}
    module = root
    while module is not None:
        yield module
        module = next((m for m in module.children() if every <= {id(p) for p in m.parameters()}), None)

def _stop():
    for handle in _handles:
        handle.remove()
    _handles.clear()
    _calls.clear()

def _watch():
    import inspect
    import torch
    from torch.utils import _pytree
    _stop()
    thread, under_way = threading.get_ident(), []

    def harmless(hook):
        def guarded(*args):
            try:
                hook(*args)
            except Exception:
                _stop()  # without a probe, and without a word to the program
        return guarded

    def before(module, args, kwargs={}):
        if threading.get_ident() != thread or not torch.is_grad_enabled() or len(_calls) == _kMost or _transforming():
            return
        call = _Call()
        call.module, call.outputs = weakref.ref(module), []
        leaves, call.spec = _pytree.tree_flatten((args, dict(kwargs)))
        with torch.no_grad():
            call.leaves = [x.detach().clone() if isinstance(x, torch.Tensor) else x for x in leaves]
        _calls.append(call)
        under_way.append(call)

    def after(module, args, output):
        if _transforming():
            return
        while under_way and under_way[-1].module() is not module:
            under_way.pop()  # it was left by an exception
        if under_way:
            under_way.pop().outputs = list(_tensors(output, ()))

    more = "with_kwargs" in inspect.signature(torch.nn.Module.register_forward_pre_hook).parameters
    for reference in _networks:
        root = reference()
        for module in _covering(root) if root is not None else ():
            # Wrappers that cannot be copied; and classes that choose their kernel by whether there are hooks.
            if type(module).__module__.startswith(("torch.nn.parallel", "torch.distributed", "torch.nn.modules.transformer",
                                                   "torch.nn.modules.activation")):
                continue
            _handles.append(module.register_forward_pre_hook(harmless(before), **({"with_kwargs": True} if more else {})))
            _handles.append(module.register_forward_hook(harmless(after)))

def _transforming():
    """True within vmap, grad and the like of torch.func, whose tensors must not be kept."""
    import torch
    peek = getattr(getattr(torch._C, "_functorch", None), "peek_interpreter_stack", None)
    return peek is not None and peek() is not None

def _tensors(value, path):
    import torch
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, collections.abc.Mapping):
        for key, item in value.items():
            yield from _tensors(item, path + (key,))
    elif isinstance(value, (tuple, list)):
        for key, item in enumerate(value):
            yield from _tensors(item, path + (key,))

def _choose(number, place, rows, classes_second):
    global _chosen
    import torch
    call = _calls[number]
    call.path, output = call.outputs[place]
    call.classes_second = classes_second
    samples = output.shape[0]
    call.places = [i for i, x in enumerate(call.leaves)
                   if isinstance(x, torch.Tensor) and x.dim() > 0 and x.shape[0] == samples]
    if not call.places:
        return [], "no tensor that goes into its forward has as many samples as its output"
    call.inputs = [call.leaves[i][:rows].cpu().clone() for i in call.places]
    for i, x in enumerate(call.leaves):
        if isinstance(x, torch.Tensor):
            call.leaves[i] = None if i in call.places else x.cpu()
    call.outputs = None
    _chosen = call
    return call.inputs, ""

def _copy_of(module):
    """A copy on the CPU in eval mode, without hooks that are not PyTorch's own. An accelerator's memory is left alone."""
    import torch
    tensors = list(module.parameters()) + list(module.buffers())
    size = sum(x.numel() * x.element_size() for x in tensors)
    with open("/proc/meminfo") as file:
        free = 1024 * next(int(line.split()[1]) for line in file if line.startswith("MemAvailable:"))
    if size > free / 4:
        raise MemoryError(f"a copy would take {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free")
    memo = {}
    for x in tensors:
        if x.device.type != "cpu":
            here = x.detach().cpu()
            memo[id(x)] = torch.nn.Parameter(here, x.requires_grad) if isinstance(x, torch.nn.Parameter) else here
    for part in module.modules():
        for name, value in vars(part).items():
            if name.endswith("_hooks") and isinstance(value, dict):
                own = [(k, h) for k, h in value.items() if type(h).__module__.startswith("torch.")]
                memo[id(value)] = collections.OrderedDict(own)
            elif isinstance(value, torch.Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()  # computed weights
    duplicate = copy.deepcopy(module, memo)
    for part in duplicate.modules():
        part.training = False
    return duplicate

def _as_function_of(duplicate, call):
    """Gives the copy a forward from the input tensors to the output tensor."""
    from torch.utils import _pytree
    kind, own = type(duplicate), vars(duplicate).pop("forward", None)
    def forward(self, *tensors):
        leaves = list(call.leaves)
        for place, tensor in zip(call.places, tensors):
            leaves[place] = tensor
        args, kwargs = _pytree.tree_unflatten(leaves, call.spec)
        output = own(*args, **kwargs) if own else kind.forward(self, *args, **kwargs)
        for key in call.path:
            output = output[key]
        return output.movedim(1, -1) if call.classes_second else output
    duplicate.__class__ = type(kind.__name__, (kind,), {
        "forward": forward, "__module__": kind.__module__, "__qualname__": kind.__qualname__})

class _Quiet:
    """A stream that drops what one thread writes."""
    def __init__(self, stream):
        self._stream, self._thread = stream, threading.get_ident()
    def write(self, text):
        return len(text) if threading.get_ident() == self._thread else self._stream.write(text)
    def __getattr__(self, name):
        return getattr(self._stream, name)

def _generators():
    """A function that puts them back as they are now."""
    import torch
    restore = [(torch.random.set_rng_state, torch.random.get_rng_state())]
    if torch.cuda.is_initialized():
        restore.append((torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all()))
    for module, get, put in (("random", "getstate", "setstate"), ("numpy.random", "get_state", "set_state")):
        there = sys.modules.get(module)
        if there is not None:
            restore.append((getattr(there, put), getattr(there, get)()))
    def put_back():
        for put, state in restore:
            put(state)
    return put_back

def _without_checkpoints():
    """Lets re-entrant checkpoints, which cannot be traced, call what they are of; a function that undoes it."""
    checkpoint = getattr(sys.modules.get("torch.utils.checkpoint"), "CheckpointFunction", None)
    if checkpoint is None or "apply" in vars(checkpoint):
        return lambda: None
    checkpoint.apply = staticmethod(lambda function, preserve, *args: function(*args))
    return lambda: delattr(checkpoint, "apply")

def _trace():
    import torch
    from torch.nn.modules import module as hooks
    call = _chosen
    module = call.module()
    if module is None:
        return b"", "it is gone"
    if torch._C._get_tracing_state() is not None:
        return b"", "the program is tracing by itself"
    if hooks._global_forward_hooks or hooks._global_forward_pre_hooks:
        return b"", "the program hooks all modules"

    asked = []
    class Watch(torch.overrides.TorchFunctionMode):
        """Values of tensors that the forward decides by: a trace would decide the same for ever. PyTorch's own modules
        look at masks only."""
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if getattr(function, "__name__", "") in ("__bool__", "__int__", "__float__", "__index__", "__complex__", "item",
                                                     "tolist", "numpy", "__array__", "is_nonzero"):
                frame = sys._getframe(1)
                while frame.f_back and frame.f_globals.get("__name__") in ("torch._tensor", "torch.overrides"):
                    frame = frame.f_back
                if not str(frame.f_globals.get("__name__")).startswith("torch.nn."):
                    asked.append(function.__name__)
            return function(*args, **(kwargs or {}))

    put_back, streams, show = _generators(), (sys.stdout, sys.stderr), warnings.showwarning
    sys.stdout, sys.stderr = _Quiet(sys.stdout), _Quiet(sys.stderr)
    warnings.showwarning = lambda *args, **kwargs: None
    checkpoints = _without_checkpoints()
    try:
        duplicate = _copy_of(module)
        _as_function_of(duplicate, call)
        with torch.enable_grad():
            with Watch():
                whole = duplicate(*call.inputs)
            if asked:
                return b"", "its forward decides by the value of a tensor (Tensor." + asked[0] + ")"
            if whole.shape[0] != call.inputs[0].shape[0]:
                return b"", "its output has another number of samples in eval mode"
            traced = torch.jit.trace(duplicate, tuple(call.inputs), check_trace=False, strict=False)
            first = whole.shape[0] // 2  # the second half: where samples were positions, it might need the first
            part, expected = traced(*[x[first:] for x in call.inputs]), whole[first:]
            tolerance = max(1e-3, 8 * torch.finfo(whole.dtype).eps)
            if part.shape != expected.shape or not bool(
                    (part - expected).abs().max() <= tolerance * whole.abs().max()):
                return b"", ("half of the samples do not give half of its output: they are not independent, or the trace "
                             "took their number for a constant")
        return traced.save_to_buffer(), ""
    finally:
        sys.stdout, sys.stderr = streams
        warnings.showwarning = show
        checkpoints()
        put_back()

def _try(work, nothing):
    global _error
    try:
        result, _error = work()
        return result
    except Exception as error:
        _error = type(error).__name__ + ": " + next(iter(str(error).strip().splitlines()), "")
        return nothing
