"""Flags of trtexec, from 7 to 11, that `videodeblur build` and `videodeblur trtexec` know and do not act on, with what they say of
each; and those that only the latter acts on."""

OUR_MEASURE = "this command builds; videodeblur trtexec builds and measures"
TYPED_GRAPH = "types are written into the graph, which all but TensorRT 8.6 obey"
NO_EFFECT = {  # flag: (takes a value, why it is read and not used)
    **{f"--{name}": (False, "it is what happens anyway") for name in ("stronglyTyped", "explicitBatch", "asyncFileReader")},
    "--directIO": (False, "the engine's layouts are plain"),
    "--preview": (True, "those features are always on"),
    "--minTiming": (True, "TensorRT dropped it, --avgTiming is left"),
    "--strictTypes": (False, TYPED_GRAPH),
    "--explicitPrecision": (False, TYPED_GRAPH),
    "--precisionConstraints": (True, TYPED_GRAPH),
    **{f"--{name}": (False, "the network normalises nothing") for name in ("nativeInstanceNorm", "ni", "pluginInstanceNorm", "pi")},
    "--consistency": (False, "it checks engines for NVIDIA's safety runtime"),
}
DEFAULTS = {  # flags that say what trtexec 11 does anyway: the one that says otherwise
    "--noDataTransfers": "--includeDataTransfers",
    "--useSpinWait": "--noSpinWait",
    "--useCudaGraph": "--noCudaGraph",
    "--separateProfileRun": None,
}
MEASURES = {  # flags that `trtexec` acts on: whether they take a value; `build` names those it was given in a note
    **dict.fromkeys(DEFAULTS, False),
    **{f"--{name}": False for name in ("skipInference", "buildOnly", "includeDataTransfers", "noSpinWait", "noCudaGraph")},
    **{f"--{name}": False for name in ("threads", "exposeDMA", "dumpOptimizationProfile")},
    **{f"--{name}": True for name in ("iterations", "warmUp", "duration", "avgRuns", "percentile", "infStreams", "streams")},
    **{f"--{name}": True for name in ("sleepTime", "idleTime", "useProfile", "persistentCacheRatio", "allocationStrategy")},
    "--useRuntime": True,
}
RESULTS = {  # the same where something that was asked for would be missing: `build` refuses them
    **{f"--{name}": False for name in ("dumpProfile", "dumpOutput", "dumpRawBindingsToFile", "dumpLayerInfo", "timeDeserialize")},
    **{f"--{name}": True for name in ("exportTimes", "exportOutput", "exportProfile", "loadInputs", "loadRefOutputs", "refPair")},
    **{f"--{name}": True for name in ("accuracyAlgorithm", "accuracyThreshold", "atol", "rtol")},
}
NO_EFFECT_ON_RTX = {  # field of EngineRequest: flag; TensorRT-RTX accepts and ignores them, tried with 1.7
    "optimization_level": "--builderOptimizationLevel",
    "max_aux_streams": "--maxAuxStreams",
    "tiling_level": "--tilingOptimizationLevel",
    "avg_timing": "--avgTiming",
    "max_tactics": "--maxTactics",
    "timing_cache": "--timingCacheFile",
    "device": "--device",
    "hardware_compatibility": "--hardwareCompatibilityLevel",
}
BATCH = "the number of windows is the first of --optShapes, such as blurry:1x5x720x1280"
ONNX_ONLY = "the model is an ONNX file: name it with --onnx"
CALIBRATION = "calibration runs by itself here: use --calib DATA or --ranges FILE"
DLA = "the network does not run on a DLA: leave it out"
PLUGINS = "the network needs no plugins: leave it out"
SAFETY = "engines for NVIDIA's safety runtime are not offered: leave it out"
REFITTING = "refitting is not offered: build again, it takes seconds with a timing cache"
STREAMED = "the weights are tens of megabytes: leave it out"
TUNER = "trying build routes is not offered: use --builderOptimizationLevel=5, or measure engines of your own making one by one"
DEBUGGING = "tensors inside an engine are not read: videodeblur verify --layers tells where two models part"
PLAIN = "only chw is offered: leave it out, and choose types with export/to_onnx.py --io u8"
FILES = "TensorRT's temporary files go where the system's do: set TMPDIR instead"
REFUSED = {  # flag: what to do instead
    "--fp32": "a build without precision flags keeps the types of the file: leave it out",
    "--int4": "INT4 is for matrix products, this network has none: use --int8",
    "--layerOutputTypes": "a layer's type is that of its output here: use --layerPrecisions",
    **{f"--{name}": CALIBRATION for name in ("calibProfile", "minShapesCalib", "optShapesCalib", "maxShapesCalib")},
    "--weightless": "its name is --stripWeights now",
    "--stripAllWeights": "the record of an engine needs its weights: use --stripWeights",
    "--restricted": "TensorRT dropped it: leave it out",
    **{f"--{name}": REFITTING for name in ("refitFromOnnx", "timeRefit", "dumpRefit")},
    **{f"--{name}": SAFETY for name in ("safe", "safetyPlugins", "dumpKernelText", "monitorMemory", "remoteAutoTuningConfig")},
    **{f"--{name}": SAFETY for name in ("std", "serialized")},  # of its builder, a program of its own
    "--cpuOnly": "it is for NVIDIA's safety runtime: --runtime rtx builds without a GPU",
    **{f"--{name}": BATCH for name in ("maxBatch", "batch")},
    **{f"--{name}": ONNX_ONLY for name in ("deploy", "model", "uff", "uffInput", "uffNHWC")},
    "--output": "the outputs are those of the ONNX file: leave it out",
    **{f"--{name}": DLA for name in ("useDLACore", "allowGPUFallback", "buildDLAStandalone", "adjustForDLA")},
    **{f"--{name}": DLA for name in ("reportCapabilityDLA", "uint8AsymmetricQuantizationDLA", "layerDeviceTypes")},
    **{f"--{name}": PLUGINS for name in ("plugins", "dynamicPlugins", "staticPlugins", "setPluginsToSerialize")},
    **{f"--{name}": PLUGINS for name in ("enablePluginOverride", "ignoreParsedPluginLibs")},
    "--decomposableAttentions": "the network has no attention: leave it out",
    **{
        f"--{name}": TUNER for name in ("tuneBuildRoutes", "tuneBuildRouteFile", "tuningSearch", "tuningCacheFile", "tuningTimeOut")
    },
    **{
        f"--{name}": TUNER
        for name in ("tuningResultFile", "saveAllEngines", "dryRun", "continue", "helpBuildRoute", "setBuildRoute")
    },
    **{f"--{name}": DEBUGGING for name in ("markDebug", "markUnfusedTensorsAsDebugTensors", "saveDebugTensors")},
    "--saveAllDebugTensors": DEBUGGING,
    "--leanDLLPath": "the runner finds the lean runtime by its Python package: leave it out",
    **{f"--{name}": STREAMED for name in ("allowWeightStreaming", "weightStreamingBudget")},
    "--useManagedMemory": "frames lie in page-locked memory and on the GPU: leave it out",
    **{f"--{name}": FILES for name in ("tempdir", "tempfileControls")},
    "--runtimeCacheFile": "TensorRT-RTX's compiled kernels are kept in the user's cache: leave it out",
    "--rtxCudaGraphStrategy": "TensorRT-RTX records whole graphs: turn them off with --noCudaGraph",
    "--specializeStrategyDS": "kernels are compiled when a shape is first met: leave it out",
}
