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
    "--precisionConstraints": (True, "types are written into the graph, which all but TensorRT 8.6 obey"),
    "--allocationStrategy": (True, "the runner allocates"),
    "--useRuntime": (True, "the runner picks the library"),
}
REFUSED = {  # flag: what to do instead
    "--int4": "INT4 is for matrix products, this network has none: use --int8",
    "--layerOutputTypes": "a layer's type is that of its output here: use --layerPrecisions",
    "--calibProfile": "calibration runs by itself here: use --calib DATA or --ranges FILE",
    "--weightless": "its name is --stripWeights now",
    "--stripAllWeights": "the record of an engine needs its weights: use --stripWeights",
    "--refitFromOnnx": "refitting is not offered: build again, it takes seconds with a timing cache",
    "--useDLACore": "the network does not run on a DLA",
    "--allowGPUFallback": "the network does not run on a DLA",
    "--inputIOFormats": "inputs are plain (chw): leave it out, and choose types with export/to_onnx.py --io u8",
    "--outputIOFormats": "outputs are plain (chw): leave it out, and choose types with export/to_onnx.py --io u8",
    "--leanDLLPath": "the runner finds the lean runtime by its Python package: leave it out",
    "--dynamicPlugins": "the network needs no plugins: leave it out",
    "--staticPlugins": "the network needs no plugins: leave it out",
    "--allowWeightStreaming": "the weights are tens of megabytes: leave it out",
}
