"""Flags of trtexec that `videodeblur build` knows and does not act on, with what it says of each."""

OUR_MEASURE = "this command builds; videodeblur bench measures"
NO_EFFECT = {  # flag: (takes a value, why it is read and not used)
    **{
        f"--{name}": (False, "it is what happens anyway")
        for name in ("stronglyTyped", "explicitBatch", "buildOnly", "skipInference")
    },
    **{f"--{name}": (False, "the runner uses graphs by itself") for name in ("useCudaGraph", "noCudaGraph")},
    **{f"--{name}": (False, OUR_MEASURE) for name in ("noDataTransfers", "includeDataTransfers", "useSpinWait", "noSpinWait")},
    **{f"--{name}": (False, OUR_MEASURE) for name in ("separateProfileRun", "dumpProfile", "dumpOutput", "threads", "exposeDMA")},
    **{f"--{name}": (False, OUR_MEASURE) for name in ("useManagedMemory", "timeDeserialize", "timeRefit")},
    **{f"--{name}": (True, OUR_MEASURE) for name in ("iterations", "warmUp", "duration", "avgRuns", "percentile", "infStreams")},
    **{f"--{name}": (True, OUR_MEASURE) for name in ("streams", "loadInputs", "exportTimes", "exportOutput", "exportProfile")},
    **{f"--{name}": (True, OUR_MEASURE) for name in ("sleepTime", "idleTime", "useProfile", "persistentCacheRatio")},
    "--directIO": (False, "the engine's layouts are plain"),
    "--preview": (True, "those features are always on"),
    "--minTiming": (True, "TensorRT dropped it, --avgTiming is left"),
    "--strictTypes": (False, "types are written into the graph, which all but TensorRT 8.6 obey"),
    "--precisionConstraints": (True, "types are written into the graph, which all but TensorRT 8.6 obey"),
    "--allocationStrategy": (True, "the runner allocates"),
    "--useRuntime": (True, "the runner picks the library"),
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
REFUSED = {  # flag: what to do instead
    "--fp32": "a build without precision flags keeps the types of the file: leave it out",
    "--int4": "INT4 is for matrix products, this network has none: use --int8",
    "--layerOutputTypes": "a layer's type is that of its output here: use --layerPrecisions",
    "--calibProfile": "calibration runs by itself here: use --calib DATA or --ranges FILE",
    "--weightless": "its name is --stripWeights now",
    "--stripAllWeights": "the record of an engine needs its weights: use --stripWeights",
    "--refitFromOnnx": "refitting is not offered: build again, it takes seconds with a timing cache",
    "--safe": "engines for NVIDIA's safety runtime are not offered: leave it out",
    "--maxBatch": "the number of windows is the first of --optShapes, such as blurry:1x5x720x1280",
    "--batch": "the number of windows is the first of --optShapes, such as blurry:1x5x720x1280",
    "--deploy": "the model is an ONNX file: name it with --onnx",
    "--uff": "the model is an ONNX file: name it with --onnx",
    "--dumpLayerInfo": "layers are written to a file: use --exportLayerInfo=FILE",
    "--useDLACore": "the network does not run on a DLA",
    "--allowGPUFallback": "the network does not run on a DLA",
    "--inputIOFormats": "inputs are plain (chw): leave it out, and choose types with export/to_onnx.py --io u8",
    "--outputIOFormats": "outputs are plain (chw): leave it out, and choose types with export/to_onnx.py --io u8",
    "--leanDLLPath": "the runner finds the lean runtime by its Python package: leave it out",
    "--dynamicPlugins": "the network needs no plugins: leave it out",
    "--staticPlugins": "the network needs no plugins: leave it out",
    "--allowWeightStreaming": "the weights are tens of megabytes: leave it out",
}
